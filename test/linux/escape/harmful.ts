/** Attempts that harm the machine when they succeed, and so are made only in a virtual machine that is thrown away. */
import type { Attempt } from './attempt.ts'

const ROOT = ['users', 'capabilities', 'seccomp'] as const
const DEVICE = ['users', 'capabilities', 'devices'] as const
const SYSRQ = '/proc/sysrq-trigger'

/** The machine goes on after these. */
const CHANGING: readonly Attempt[] = [
  {
    name: 'have the kernel run a program of the host when one crashes',
    without: ['users', 'paths'],
    perl: String.raw`
      handled(sub {
        my $before = content('/proc/sys/kernel/core_pattern');
        wrote('/proc/sys/kernel/core_pattern', "|$ENV{HOST_HANDLER}");
        my $pid = fork // refused($!);
        if ($pid == 0) { kill 'SEGV', $$; exit }
        waitpid $pid, 0;
        wrote('/proc/sys/kernel/core_pattern', $before);
      });`
  },
  {
    name: 'have the kernel run a program of the host to load a module',
    without: ['users', 'paths'],
    perl: String.raw`
      handled(sub {
        my $before = content('/proc/sys/kernel/modprobe');
        wrote('/proc/sys/kernel/modprobe', $ENV{HOST_HANDLER});
        # The kernel asks for a module that knows such programs.
        my $path = "/tmp/unknown-$$";
        open(my $program, '>', $path) or refused($!);
        print $program "\xff\xfe\xfd\xfc";
        close $program;
        chmod 0755, $path;
        my $pid = fork // refused($!);
        if ($pid == 0) { exec {$path} $path; exit }
        waitpid $pid, 0;
        unlink $path;
        wrote('/proc/sys/kernel/modprobe', $before);
      });`
  },
  {
    name: 'have the kernel run a program of the host when a group is empty',
    without: [...ROOT, 'cgroups'],
    perl: String.raw`
      my $at = directory();
      need('mount', 'cgroup', $at, 'cgroup', 0, 'none,name=slicenet-escape');
      handled(sub {
        mkdir "$at/group" or refused($!);
        wrote("$at/release_agent", $ENV{HOST_HANDLER});
        wrote("$at/group/notify_on_release", '1');
        my $pid = fork // refused($!);
        if ($pid == 0) { wrote("$at/group/cgroup.procs", $$); exit }
        waitpid $pid, 0;
      });`
  },
  {
    name: 'have another kernel ready to be started',
    without: ROOT,
    perl: String.raw`
      my $page = "\xf4" x 4096;
      my $segment = pack('PQQQ', $page, 4096, 0x4000000, 4096);
      need('kexec_load', 0x4000000, 1, $segment, 0);
      my $is_loaded = content('/sys/kernel/kexec_loaded') =~ /1/;
      need('kexec_load', 0, 0, 0, 0);
      $is_loaded ? reached() : refused('not loaded');`
  },
  {
    name: 'load a kernel module that does something',
    without: ROOT,
    perl: String.raw`
      my $module = pack('H*', $ENV{HOST_MODULE});
      need('init_module', $module, length $module, '');
      my $is_there = content('/proc/modules') =~ /^$ENV{HOST_MODULE_NAME} /m;
      need('delete_module', $ENV{HOST_MODULE_NAME}, 0);
      $is_there ? reached() : refused('not loaded');`
  },
  {
    name: 'set the clock of the host',
    without: ROOT,
    perl: String.raw`
      my $before = time;
      my $later = pack('qq', $before + 7200, 0);
      need('settimeofday', $later, 0);
      my $is_set = time >= $before + 7200;
      $later = pack('qq', $before, 0);
      need('settimeofday', $later, 0);
      $is_set ? reached() : refused('the clock is as it was');`
  },
  {
    name: 'be the last to be killed when memory is short',
    without: ['users', 'capabilities'],
    perl: String.raw`
      wrote('/proc/self/oom_score_adj', '-1000');
      content('/proc/self/oom_score_adj') == -1000 or refused('it may be killed');
      reached();`
  },
  {
    name: 'take a processor from the host',
    without: ['users', 'paths'],
    perl: String.raw`
      my $processor = '/sys/devices/system/cpu/cpu1/online';
      wrote($processor, '0');
      my $is_gone = content($processor) == 0;
      wrote($processor, '1');
      $is_gone ? reached() : refused('the processor is there');`
  },
  {
    name: "write into the machine's memory",
    without: DEVICE,
    perl: String.raw`
      my $memory = device(0020000, 1, 1, 2);
      # What the screen shows.
      my ($at, $cell) = (0xb8000, '');
      sysseek($memory, $at, 0);
      syswrite($memory, "s\x07") or refused("cannot write: $!");
      sysseek($memory, $at, 0);
      sysread($memory, $cell, 2) or refused("cannot read: $!");
      $cell eq "s\x07" ? reached() : refused('it is as it was: ' . unpack 'H*', $cell);`
  }
]

/** The machine is gone after each of these. */
const ENDING: readonly Attempt[] = [
  {
    name: 'crash the kernel by SysRq',
    without: ['users', 'paths'],
    endsMachine: /Kernel panic - not syncing: sysrq triggered crash/,
    perl: `wrote('${SYSRQ}', 'c');`
  },
  {
    name: 'restart the machine by SysRq',
    without: ['users', 'paths'],
    endsMachine: /sysrq: Resetting/,
    perl: `wrote('${SYSRQ}', 'b');`
  },
  {
    name: 'restart the machine by a system call',
    without: [...ROOT, 'processes'],
    endsMachine: /reboot: Restarting system/,
    perl: `need('reboot', 0xfee1dead, 672274793, 0x1234567, 0);`
  },
  {
    name: 'start a kernel of its own',
    without: [...ROOT, 'processes'],
    // What it starts restarts the machine by one instruction, and so says nothing.
    endsMachine: /kexec_core: Starting new kernel/,
    perl: String.raw`
      my $page = "\x66\xba\xf9\x0c\xb0\x06\xee\xf4" . "\0" x 4088;
      my $segment = pack('PQQQ', $page, 4096, 0x4000000, 4096);
      need('kexec_load', 0x4000000, 1, $segment, 0);
      need('reboot', 0xfee1dead, 672274793, 0x45584543, 0);`
  }
]

export const HARMFUL_ATTEMPTS: readonly Attempt[] = [...CHANGING, ...ENDING].map((attempt) => ({
  ...attempt,
  inVirtualMachine: true
}))

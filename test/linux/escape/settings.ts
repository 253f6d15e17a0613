/** Attempts on settings that the whole machine shares: kernel parameters, priorities, clocks and limits. */
import type { Attempt } from './attempt.ts'

const SAME_VALUE = 'the value that was read is written back'
const ONLY_OPENED = 'opened for writing, and nothing is written'
const BAD_ARGUMENT = 'an argument is wrong, so that even a call that is allowed changes nothing'

const SETTINGS = [
  '/proc/sys/kernel/core_pattern',
  '/proc/sys/kernel/randomize_va_space',
  '/proc/sys/kernel/panic',
  '/proc/sys/vm/overcommit_memory',
  '/proc/sys/fs/suid_dumpable',
  '/proc/sys/fs/protected_symlinks'
]

export const SETTING_ATTEMPTS: readonly Attempt[] = [
  ...SETTINGS.map((path): Attempt => ({
    name: `write ${path}`,
    without: ['users', 'paths'],
    harmless: SAME_VALUE,
    perl: `rewrite('${path}');`
  })),
  {
    name: 'choose who handles interrupts',
    without: ['users', 'paths'],
    harmless: SAME_VALUE,
    perl: `rewrite('/proc/irq/default_smp_affinity');`
  },
  {
    name: 'open /proc/sysrq-trigger',
    without: ['users', 'paths'],
    harmless: ONLY_OPENED,
    mayLack: 'magic SysRq in the kernel',
    inVirtualMachine: true,
    perl: `absent('no sysrq') unless -e '/proc/sysrq-trigger'; opened('/proc/sysrq-trigger', 1); reached();`
  },
  {
    name: 'write a setting of a disk in /sys',
    without: ['users', 'paths'],
    harmless: `${SAME_VALUE}, of the disk that holds this test's own volume`,
    perl: `rewrite("/sys/block/$ENV{DISK_NAME}/queue/read_ahead_kb");`
  },
  {
    name: 'open the power state in /sys',
    without: ['users', 'paths'],
    harmless: ONLY_OPENED,
    mayLack: 'power management in the kernel',
    perl: `absent('no power management') unless -e '/sys/power/state'; opened('/sys/power/state', 1); reached();`
  },
  {
    name: 'read the memory of the kernel',
    without: ['users', 'paths', 'capabilities'],
    harmless: 'only opened',
    mayLack: '/proc/kcore in the kernel',
    inVirtualMachine: true,
    perl: `absent('no kcore') unless -e '/proc/kcore'; -c '/proc/kcore' and refused('masked'); opened('/proc/kcore', 0); reached();`
  },
  {
    name: 'read the addresses of the kernel',
    without: ['users', 'paths', 'capabilities'],
    perl: String.raw`content('/proc/kallsyms') =~ /^0*[1-9a-f][0-9a-f]* /m or refused('no addresses'); reached();`
  },
  {
    name: 'read the timers of all processes',
    without: ['users', 'paths'],
    perl: `content('/proc/timer_list') =~ /Timer/ or refused('empty'); reached();`
  },
  {
    name: 'read the messages of the kernel',
    without: ['users', 'capabilities'],
    harmless: 'opened, and no message is taken',
    perl: `opened('/proc/kmsg', 0); reached();`
  },
  {
    name: 'read the log of the kernel',
    without: ['users', 'capabilities', 'seccomp'],
    perl: String.raw`my $log = "\0" x 4096; need('syslog', 3, $log, length $log); reached();`
  },
  {
    name: 'change what the console shows of the kernel',
    without: ['users', 'capabilities', 'seccomp'],
    harmless: BAD_ARGUMENT,
    perl: `ask(22, 'syslog', 8, 0, 99);`
  },
  {
    name: 'steer the clock',
    without: ['users', 'capabilities'],
    harmless: BAD_ARGUMENT,
    perl: String.raw`my $timex = pack('L', 0x4000) . "\0" x 300; ask(22, 'adjtimex', $timex);`
  },
  {
    name: 'set the time zone of the kernel',
    without: ['users', 'capabilities', 'seccomp'],
    harmless: BAD_ARGUMENT,
    perl: `my $zone = pack('ll', 1000, 0); ask(22, 'settimeofday', 0, $zone);`
  },
  {
    name: 'set the host name of the host',
    without: ['users', 'capabilities', 'seccomp', 'hostname'],
    harmless: 'the host gets the name that it has',
    perl: String.raw`
      my $name = content('/proc/sys/kernel/hostname');
      chomp $name;
      refused("the name is $name") if $name ne $ENV{HOST_NAME};
      need('sethostname', $name, length $name);
      reached($name);`
  },
  {
    name: 'restart the machine',
    without: ['users', 'capabilities', 'seccomp', 'processes'],
    harmless: 'the magic numbers are wrong, so that the kernel does not take the order',
    perl: `ask(22, 'reboot', 0, 0, 0, 0);`
  },
  {
    name: 'turn on a swap file',
    without: ['users', 'capabilities', 'seccomp'],
    harmless: 'there is no such file',
    perl: `ask(2, 'swapon', '/no-such-file', 0);`
  },
  {
    name: 'raise its priority',
    without: ['users', 'capabilities'],
    harmless: 'the process ends at once',
    perl: `setpriority(0, 0, -5) or refused($!); reached();`
  },
  {
    name: 'use disks before everybody else',
    without: ['users', 'capabilities'],
    harmless: 'the process ends at once',
    perl: `need('ioprio_set', 1, 0, 1 << 13 | 4); reached();`
  },
  {
    name: 'raise a limit of its own',
    without: ['users', 'capabilities'],
    harmless: 'one byte of core file for a process that ends at once',
    mayLack: 'CAP_SYS_RESOURCE',
    inVirtualMachine: true,
    perl: String.raw`
      my $limit = pack('QQ', 1, 1);
      reached() if call('prlimit64', 0, 4, $limit, 0) >= 0;
      my $why = "$!";
      my ($held) = content('/proc/self/status') =~ /^CapEff:\s*([0-9a-f]+)/m;
      absent('root of this machine may not either') unless hex(substr $held, -7) & 1 << 24;
      refused($why);`
  }
]

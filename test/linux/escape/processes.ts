/** Attempts on processes, sockets and memory of the host. What they reach is the test's own. */
import type { Attempt } from './attempt.ts'

const TRACER = ['users', 'capabilities', 'processes'] as const
const IS_MARKER = String.raw`
  my $pid = $ENV{HOST_PID} + 0;
  content("/proc/$pid/cmdline") =~ /\Q$ENV{HOST_SECONDS}/ or refused('another process');
`

const OPEN_DIRECTORY = String.raw`
  for my $fd (3 .. 255) {
    next unless chdir "/proc/self/fd/$fd";
    secret('secret') if -e 'secret';
  }
  refused('no directory is open');`

export const PROCESS_ATTEMPTS: readonly Attempt[] = [
  {
    name: 'read a file through the root of a host process',
    without: TRACER,
    perl: `secret("/proc/$ENV{HOST_PID}/root$ENV{HOST_FILE}");`
  },
  {
    name: 'read a file through the root of any process it sees',
    without: TRACER,
    perl: String.raw`
      for my $process (grep m{/[0-9]+$}, entries('/proc')) {
        secret("$process/root$ENV{HOST_FILE}") if -e "$process/root$ENV{HOST_FILE}";
      }
      refused('no process has the file');`
  },
  {
    name: 'read a file that a host process has open',
    without: TRACER,
    perl: `secret("/proc/$ENV{HOST_PID}/fd/0");`
  },
  {
    name: 'read the environment of a host process',
    without: TRACER,
    perl: `secret("/proc/$ENV{HOST_PID}/environ");`
  },
  {
    name: "read the environment of the host's first process",
    without: TRACER,
    harmless: 'only whether it can be read is told',
    mayLack: 'a first process that root may look into',
    inVirtualMachine: true,
    perl: String.raw`
      absent() unless $ENV{HOST_FIRST_IS_OPEN};
      my $namespace = readlink '/proc/1/ns/pid';
      defined $namespace or refused($!);
      refused("the first process of $namespace") if $namespace ne $ENV{HOST_PID_NAMESPACE};
      opened('/proc/1/environ', 0);
      reached();`
  },
  {
    name: 'open the memory of a host process',
    without: TRACER,
    harmless: 'opened for writing, and nothing is written',
    perl: `${IS_MARKER} opened("/proc/$pid/mem", 2); reached();`
  },
  {
    name: 'read the memory of a host process',
    without: TRACER,
    mayLack: 'cross-memory calls in the kernel',
    perl: String.raw`
      ${IS_MARKER}
      my ($from) = content("/proc/$pid/maps") =~ /^([0-9a-f]+)/ or refused('no maps');
      my $bytes = "\0" x 8;
      my $here = pack('PQ', $bytes, 8);
      my $there = pack('QQ', hex $from, 8);
      need('process_vm_readv', $pid, $here, 1, $there, 1, 0);
      reached();`
  },
  {
    name: 'trace a host process',
    without: TRACER,
    harmless: 'it runs on, and is let go at the end of the tracer',
    perl: `${IS_MARKER} need('ptrace', 0x4206, $pid, 0, 0); reached();`
  },
  {
    name: 'signal a host process',
    without: ['users', 'processes'],
    harmless: 'signal 0 only asks',
    perl: `${IS_MARKER} kill(0, $pid) or refused($!); reached();`
  },
  {
    name: 'signal a host process by a descriptor',
    without: ['users', 'processes'],
    harmless: 'signal 0 only asks',
    perl: `
      my $fd = need('pidfd_open', $ENV{HOST_PID} + 0, 0);
      ${IS_MARKER}
      need('pidfd_send_signal', $fd, 0, 0, 0);
      reached();`
  },
  {
    name: 'take a descriptor of a host process',
    without: [...TRACER, 'seccomp'],
    perl: `
      my $process = need('pidfd_open', $ENV{HOST_PID} + 0, 0);
      my $fd = need('pidfd_getfd', $process, 0, 0);
      secret("/proc/self/fd/$fd");`
  },
  {
    name: 'ask for the limits of a host process',
    without: ['users', 'processes'],
    perl: `${IS_MARKER} my $limits = "\\0" x 16; need('prlimit64', $pid, 7, 0, $limits); reached();`
  },
  {
    name: 'set the priority of a host process',
    without: TRACER,
    harmless: 'it gets the priority that it has',
    perl: `${IS_MARKER} setpriority(0, $pid, getpriority(0, $pid)) or refused($!); reached();`
  },
  {
    name: 'have a host process killed first when memory is short',
    without: ['users', 'processes'],
    harmless: "the process is the test's own",
    perl: `${IS_MARKER} wrote("/proc/$pid/oom_score_adj", '900'); reached();`
  },
  {
    name: 'enter the mounts of a host process',
    without: [...TRACER, 'seccomp'],
    perl: `
      my $namespace = opened("/proc/$ENV{HOST_PID}/ns/mnt", 0);
      need('setns', fileno $namespace, 0x20000);
      secret($ENV{HOST_FILE});`
  },
  {
    name: 'enter the mounts of a host process by a descriptor of it',
    without: [...TRACER, 'seccomp'],
    perl: `
      my $fd = need('pidfd_open', $ENV{HOST_PID} + 0, 0);
      need('setns', $fd, 0x20000);
      secret($ENV{HOST_FILE});`
  },
  {
    name: 'enter a namespace, though it be its own',
    without: ['capabilities', 'seccomp'],
    perl: `my $own = opened('/proc/self/ns/uts', 0); need('setns', fileno $own, 0x4000000); reached();`
  },
  {
    name: 'connect to an abstract socket of the host',
    without: ['users', 'network'],
    isLent: true,
    perl: String.raw`
      socket(my $socket, 1, 1, 0) or refused($!);
      connect($socket, pack('S', 1) . "\0$ENV{HOST_SOCKET}") or refused($!);
      reached();`
  },
  {
    name: 'find shared memory of the host',
    without: ['users', 'ipc'],
    perl: `defined(shmget($ENV{HOST_MEMORY_KEY} + 0, 0, 0)) or refused($!); reached();`
  },
  {
    name: 'find a directory of the host left open',
    without: ['descriptors'],
    perl: OPEN_DIRECTORY
  },
  {
    name: 'find a directory of the host left open when it is launched',
    isLaunched: true,
    without: ['descriptors'],
    perl: OPEN_DIRECTORY
  },
  {
    name: 'type on a terminal of the host',
    without: ['users', 'capabilities', 'terminal'],
    harmless: 'the terminal was made for this attempt, and nobody reads from it',
    perl: String.raw`
      my @terminals = map { my $file; open($file, '<&=', $_) ? $file : () } 0 .. 20;
      my $own;
      sysopen($own, '/dev/tty', 2) and push @terminals, $own;
      for my $terminal (@terminals) {
        my $key = 'x';
        reached() if ioctl($terminal, 0x5412, $key);
      }
      refused($!);`
  }
]

/** Attempts to call parts of the kernel that no vserver needs and that were often the way out of one. */
import type { Attempt } from './attempt.ts'

const BAD_ARGUMENT = 'an argument is wrong, so that even a call that is allowed changes nothing'
const ROOT = ['users', 'capabilities', 'seccomp'] as const

export const KERNEL_CALL_ATTEMPTS: readonly Attempt[] = [
  {
    name: 'load another kernel',
    without: ROOT,
    harmless: BAD_ARGUMENT,
    mayLack: 'kexec in the kernel',
    inVirtualMachine: true,
    perl: `ask(22, 'kexec_load', 0, 0, 0, 0xfff0);`
  },
  {
    name: 'load another kernel from a file',
    without: ROOT,
    harmless: BAD_ARGUMENT,
    mayLack: 'kexec in the kernel',
    inVirtualMachine: true,
    perl: `ask(22, 'kexec_file_load', -1, -1, 0, 0, 0xfff0);`
  },
  {
    name: 'load a kernel module',
    without: ROOT,
    harmless: 'the module is empty',
    mayLack: 'modules in the kernel',
    inVirtualMachine: true,
    perl: `ask(8, 'init_module', 0, 0, '');`
  },
  {
    name: 'load a kernel module from a file',
    without: ROOT,
    harmless: 'the file is not open',
    mayLack: 'modules in the kernel',
    inVirtualMachine: true,
    perl: `ask(9, 'finit_module', -1, '', 0);`
  },
  {
    name: 'remove a kernel module',
    without: ROOT,
    harmless: 'there is no such module',
    mayLack: 'modules in the kernel',
    inVirtualMachine: true,
    perl: `ask(2, 'delete_module', 'slicenet_no_such_module', 0);`
  },
  {
    name: 'make a BPF map',
    without: ROOT,
    perl: `my $map = pack('LLLL', 2, 4, 4, 1) . "\\0" x 112; need('bpf', 0, $map, 16); reached();`
  },
  {
    name: 'watch a whole processor with perf',
    without: ROOT,
    perl: `my $event = pack('LLQ', 1, 64, 0) . "\\0" x 48; need('perf_event_open', $event, -1, 0, -1, 0); reached();`
  },
  {
    name: 'watch its own process with perf',
    without: ['seccomp'],
    mayLack: 'a kernel that lets everybody use perf',
    perl: String.raw`
      my $event = pack('LLQQQQQ', 1, 64, 1, 0, 0, 0, 0x60) . "\0" x 16;
      reached() if call('perf_event_open', $event, 0, -1, -1, 0) >= 0;
      my $why = "$!";
      absent($why) if content('/proc/sys/kernel/perf_event_paranoid') > 2;
      refused($why);`
  },
  {
    name: 'handle page faults itself',
    without: ['seccomp'],
    mayLack: 'userfaultfd in the kernel',
    perl: `need('userfaultfd', 1); reached();`
  },
  {
    name: 'set up an io_uring',
    without: ['seccomp'],
    mayLack: 'io_uring in the kernel',
    perl: `my $parameters = "\\0" x 120; need('io_uring_setup', 1, $parameters); reached();`
  },
  {
    name: 'find a keyring',
    without: ['seccomp'],
    perl: `need('keyctl', 0, -3, 0); reached();`
  },
  {
    name: 'add a key',
    without: ['seccomp'],
    harmless: 'the keyring ends with the process',
    perl: `need('add_key', 'user', 'slicenet-escape', 'x', 1, -2); reached();`
  },
  {
    name: 'ask for a key',
    without: ['seccomp'],
    harmless: 'there is no such key, and no helper is asked to make it',
    perl: `ask(126, 'request_key', 'user', 'slicenet-no-such-key', 0, 0);`
  },
  {
    name: 'watch the file systems of the host',
    without: ROOT,
    perl: `need('fanotify_init', 0, 0); reached();`
  },
  {
    name: 'open a file of the host by its handle',
    without: ROOT,
    harmless: "a file of this test's own is read",
    perl: String.raw`
      my $handle = pack('H*', $ENV{HOST_HANDLE});
      my $root = opened('/', 0200000);
      my $fd = need('open_by_handle_at', fileno $root, $handle, 0);
      secret("/proc/self/fd/$fd");`
  },
  {
    name: 'reach the hypervisor through a socket',
    without: ['seccomp'],
    mayLack: 'vsock in the kernel',
    perl: `socket(my $socket, 40, 1, 0) ? reached() : $! == 97 ? absent($!) : refused($!);`
  },
  {
    name: 'have the kernel make another kind of socket by asking for a pair',
    without: ['seccomp'],
    mayLack: 'vsock in the kernel',
    perl: String.raw`
      my $pair = "\0" x 8;
      # The kernel makes both before it says that their kind knows no pairs.
      reached() if call('socketpair', 40, 1, 0, $pair) == 0 || $! == 95;
      $! == 97 ? absent($!) : refused($!);`
  },
  {
    name: 'make a user namespace',
    without: ['seccomp'],
    perl: `need('unshare', 0x10000000); reached();`
  },
  {
    name: 'make a mount namespace',
    without: ['capabilities', 'seccomp'],
    perl: `need('unshare', 0x20000); reached();`
  },
  {
    name: 'make a network namespace',
    without: ['capabilities', 'seccomp'],
    perl: `need('unshare', 0x40000000); reached();`
  },
  {
    name: 'clone a process into a user namespace',
    without: ['seccomp'],
    perl: `
      my $pid = need('clone', 0x10000000 | 17, 0, 0, 0, 0);
      exec '/bin/true' if $pid == 0;
      waitpid $pid, 0;
      reached();`
  },
  {
    name: 'clone a process into a user namespace by the newer call',
    without: ['seccomp'],
    perl: `
      my $arguments = pack('Q8', 0x10000000, 0, 0, 0, 17, 0, 0, 0);
      my $pid = need('clone3', $arguments, length $arguments);
      exec '/bin/true' if $pid == 0;
      waitpid $pid, 0;
      reached();`
  }
]

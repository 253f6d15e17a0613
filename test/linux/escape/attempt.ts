/**
 * One attempt to get out of a vserver, as data: a perl program, and what a control must lack for it to succeed there.
 * The program ends with one line that says how far it came.
 */

/** What a control lacks of a vserver's containment. */
export type Weakness =
  /** The host's process namespace. */
  | 'processes'
  /** The host's network namespace. */
  | 'network'
  /** The host's host name (uts namespace). */
  | 'hostname'
  /** The host's shared memory and queues (ipc namespace). */
  | 'ipc'
  /** The host's view of the groups (cgroup namespace). */
  | 'cgroups'
  /** No user namespace: root inside is root of the host. */
  | 'users'
  /** Every capability that the host has. */
  | 'capabilities'
  /** No system call filter. */
  | 'seccomp'
  /** Nothing masked or read-only in /proc, and a writable /sys. */
  | 'paths'
  /** Every device may be used. */
  | 'devices'
  /** A directory of the host left open. */
  | 'descriptors'
  /** A terminal of the host left open. */
  | 'terminal'
  /** No fresh /dev over that of the image. */
  | 'dev'
  /** A console, made while somebody else changes what the image has at /dev/pts. */
  | 'console'
  /** A root that `chroot` made, without a mount namespace. */
  | 'root'

/** A file that is masked in every vserver, and where the hostile image's /dev/null leads. */
export const HIDDEN_FILE = '/proc/timer_list'

/** Where the hostile image's /dev/shm leads: the runtime writes settings of a vserver there. */
export const WRITTEN_DIRECTORY = '/proc/sys/net/ipv4'

/** Where the hostile image's /dev/pts/ptmx leads. */
export const TERMINALS_DIRECTORY = '/terminals'

export interface Attempt {
  /** Ends the sentence “a vserver cannot …”. */
  readonly name: string
  /** As little as lets the attempt succeed. */
  readonly without: readonly Weakness[]
  readonly perl: string
  /** Whether its program is launched as the slice's own, rather than run beside it. */
  readonly isLaunched?: boolean
  /** Whether its program runs at a terminal. */
  readonly isAtTerminal?: boolean
  /** Why success harms nobody, where that is not plain. */
  readonly harmless?: string
  /** Whether it leads to what an administrative slice shares with the host, and so succeeds there. */
  readonly isLent?: boolean
  /** What some machines lack, so that the control may say `absent`. */
  readonly mayLack?: string
  /** Made in a virtual machine, which has what machines that tests run on lack and may be harmed. */
  readonly inVirtualMachine?: boolean
  /** The machine is gone when it succeeds, which this is seen from, and what its console says last, if anything. */
  readonly endsMachine?: RegExp
}

export type Outcome = 'reached' | 'refused' | 'absent'

/** The outcome that a program told, and its reason; throws when it told none, since then nothing was tried. */
export function readOutcome(output: string): { readonly outcome: Outcome; readonly reason: string } {
  const told = /^(reached|refused|absent): ?(.*?)\r?$/m.exec(output)
  if (told === null) throw new Error(`the program did not say how far it came: ${output.slice(0, 2000)}`)
  return { outcome: told[1] as Outcome, reason: told[2]! }
}

/** The outcomes that the program of several attempts told, in their order; throws when one is missing. */
export function readOutcomes(output: string, attempts: readonly Attempt[]): ReturnType<typeof readOutcome>[] {
  const parts = output.split(/^attempt \d+\r?$/m).slice(1)
  if (parts.length !== attempts.length) throw new Error(`the program ended early: ${output.slice(0, 2000)}`)
  return parts.map(readOutcome)
}

/** Numbers on x86-64 and on arm64. */
const SYSTEM_CALLS: Readonly<Record<string, readonly [number, number]>> = {
  add_key: [248, 217],
  adjtimex: [159, 171],
  bpf: [321, 280],
  clone: [56, 220],
  clone3: [435, 435],
  delete_module: [176, 106],
  fanotify_init: [300, 262],
  finit_module: [313, 273],
  fsopen: [430, 430],
  init_module: [175, 105],
  io_uring_setup: [425, 425],
  ioprio_set: [251, 30],
  kexec_file_load: [320, 294],
  kexec_load: [246, 104],
  keyctl: [250, 219],
  mknodat: [259, 33],
  mount: [165, 40],
  mount_setattr: [442, 442],
  move_mount: [429, 429],
  name_to_handle_at: [303, 264],
  open_by_handle_at: [304, 265],
  open_tree: [428, 428],
  perf_event_open: [298, 241],
  pidfd_getfd: [438, 438],
  pidfd_open: [434, 434],
  pidfd_send_signal: [424, 424],
  pivot_root: [155, 41],
  prlimit64: [302, 261],
  process_vm_readv: [310, 270],
  ptrace: [101, 117],
  reboot: [169, 142],
  renameat2: [316, 276],
  request_key: [249, 218],
  sethostname: [170, 161],
  setns: [308, 268],
  settimeofday: [164, 170],
  setxattr: [188, 5],
  socketpair: [53, 199],
  swapon: [167, 224],
  syslog: [103, 116],
  umount2: [166, 39],
  unshare: [272, 97],
  userfaultfd: [323, 282]
}

const WORDS = String.raw`
$| = 1;
sub reached { print "\nreached: @_\n"; exit 0 }
sub refused { print "\nrefused: @_\n"; exit 1 }
sub absent { print "\nabsent: @_\n"; exit 2 }
sub call { my ($name, @args) = @_; $! = 0; return syscall($number{$name}, @args) }

# Makes a call that must succeed.
sub need {
  my $result = call(@_);
  return $result if $result >= 0;
  my $why = "$_[0]: $!";
  absent($why) if $! == 38;
  refused($why)
}

# A call that complains of its arguments got past every check of who may make it.
sub ask {
  my ($complaint, @call) = @_;
  my $result = call(@call);
  reached("$call[0]: $!") if $result < 0 && $! == $complaint;
  need(@call);
  reached($call[0])
}

sub opened {
  my ($path, $flags) = @_;
  sysopen(my $file, $path, $flags) or refused("$path: $!");
  return $file
}

sub content {
  my $file = opened($_[0], 0);
  my $text = '';
  defined(sysread($file, $text, 65536)) or refused("$_[0]: $!");
  return $text
}

# Reads a setting and writes back what it is.
sub rewrite {
  my ($path) = @_;
  my $value = content($path);
  $value = $1 if $value =~ /\[(.+)\]/;
  defined(syswrite(opened($path, 1), $value)) or refused("$path: $!");
  reached($path)
}

sub secret {
  my ($path) = @_;
  content($path) =~ /\Q$ENV{HOST_TOKEN}/ or refused("$path is another file");
  reached($path)
}

sub wrote {
  my ($path, $text) = @_;
  defined(syswrite(opened($path, 1), $text)) or refused("$path: $!")
}

# Waits for what the host does a moment later.
sub within_time { my ($is_so) = @_; for (1 .. 200) { return 1 if $is_so->(); select(undef, undef, undef, 0.1) } return 0 }

# Waits for the host's handler after the kernel was provoked to run it.
sub handled {
  my ($provoke) = @_;
  unlink '/tmp/handled';
  open(my $wanted, '>', '/tmp/wanted') or refused($!);
  close $wanted;
  $provoke->();
  my $is_handled = within_time(sub { -s '/tmp/handled' });
  unlink '/tmp/wanted';
  $is_handled or refused('the host ran nothing');
  secret('/tmp/handled')
}

# What is in a directory, without the module that perl's own glob wants.
sub entries {
  my ($path) = @_;
  opendir(my $directory, $path) or return ();
  return map { "$path/$_" } grep { !/^\.\.?$/ } readdir $directory
}

sub directory { my $path = "/tmp/escape-$$"; mkdir $path or refused("$path: $!"); return $path }

# Makes a device node and opens it.
sub device {
  my ($type, $major, $minor, $flags) = @_;
  my $path = "/tmp/node-$$";
  need('mknodat', -100, $path, $type | 0600, ($minor & 0xff) | ($major << 8) | (($minor & ~0xff) << 12));
  my $is_open = sysopen(my $file, $path, $flags);
  my $why = "$!";
  unlink $path;
  refused("the node cannot be opened: $why") unless $is_open;
  return $file
}
`

/** A program that may use the words above, for `perl -e`. */
export function perlProgram(body: string): string {
  const column = (['x64', 'arm64'] as string[]).indexOf(process.arch)
  if (column === -1) throw new TypeError(`no system call numbers for ${process.arch}`)
  const numbers = Object.entries(SYSTEM_CALLS).map(([name, columns]) => `${name}=>${columns[column]}`)
  return `%number = (${numbers.join(',')});\n${WORDS}\n${body}`
}

/** The whole program of an attempt. */
export function programOf(attempt: Attempt): string {
  return perlProgram(`${attempt.perl}\nrefused('nothing came of it');\n`)
}

/** One program that makes attempts one after the other, each in a process of its own. */
export function programOfAll(attempts: readonly Attempt[]): string {
  const parts = attempts.map(
    ({ perl }, index) => `
      print "\\nattempt ${index}\\n";
      unless (fork // die $!) { ${perl}
        refused('nothing came of it') }
      wait;`
  )
  return perlProgram(parts.join('\n'))
}

/** Attempts on devices, mounts and the root directory. A control's mounts are in a namespace of its own. */
import { HIDDEN_FILE, WRITTEN_DIRECTORY, type Attempt } from './attempt.ts'

const ROOT = ['users', 'capabilities', 'seccomp'] as const
const ADMIN = ['capabilities', 'seccomp'] as const
const DEVICE = ['users', 'capabilities', 'devices'] as const

/** Mounts something on a directory of the attempt's own, looks at it, and takes it away. */
function mounting(source: string, type: string, data: string, look: string): string {
  return String.raw`
    my $at = directory();
    my ($source, $type, $data) = (${source}, ${type}, ${data});
    my $mounted = call('mount', $source, $at, $type, 0, $data);
    my ($why, $number) = ("$!", $! + 0);
    if ($mounted < 0) {
      rmdir $at;
      absent($type) if $number == 19;
      refused("mount of $type: $why")
    }
    my $found = do { ${look} };
    $why = "$!";
    call('umount2', $at, 2);
    rmdir $at;
    $found ? reached("$type: $found") : refused("in $type: $why");`
}

export const DEVICE_ATTEMPTS: readonly Attempt[] = [
  {
    name: 'read a disk of the host',
    without: DEVICE,
    harmless: "the disk is the test's own volume, and it is only opened",
    perl: `device(0060000, $ENV{DISK_MAJOR}, $ENV{DISK_MINOR}, 0); reached();`
  },
  {
    name: 'write to a disk of the host',
    without: DEVICE,
    harmless: "the disk is the test's own volume, and nothing is written",
    perl: `device(0060000, $ENV{DISK_MAJOR}, $ENV{DISK_MINOR}, 1); reached();`
  },
  {
    name: "make a node of the machine's memory",
    without: ['users', 'capabilities'],
    harmless: 'the node is made and removed',
    perl: `need('mknodat', -100, "/tmp/mem-$$", 0020600, 1 << 8 | 1); unlink "/tmp/mem-$$"; reached();`
  },
  {
    name: 'read the messages of the kernel from a device',
    without: DEVICE,
    harmless: 'only opened',
    perl: `device(0020000, 1, 11, 0); reached();`
  },
  {
    name: 'write messages of the kernel',
    without: DEVICE,
    harmless: 'opened for writing, and nothing is written',
    perl: `device(0020000, 1, 11, 1); reached();`
  },
  {
    name: 'make loop devices',
    without: DEVICE,
    harmless: 'the control device is only opened',
    perl: `device(0020000, 10, 237, 2); reached();`
  },
  {
    name: 'ask the console of the machine which terminal it shows',
    without: DEVICE,
    mayLack: 'a console',
    perl: String.raw`
      my $console = device(0020000, 4, 0, 2);
      my $state = "\0" x 6;
      ioctl($console, 0x5603, $state) or absent($!);
      reached();`
  },
  {
    name: 'find a disk in /dev or /sys',
    without: ['users', 'paths', 'capabilities', 'devices'],
    harmless: "the disk is the test's own volume, and it is only opened",
    perl: String.raw`
      for my $path ("/dev/$ENV{DISK_NAME}", "/dev/block/$ENV{DISK_MAJOR}:$ENV{DISK_MINOR}") {
        sysopen(my $disk, $path, 0) and reached($path);
      }
      -e "/sys/dev/block/$ENV{DISK_MAJOR}:$ENV{DISK_MINOR}" or refused($!);
      device(0060000, $ENV{DISK_MAJOR}, $ENV{DISK_MINOR}, 0);
      reached();`
  }
]

export const MOUNT_ATTEMPTS: readonly Attempt[] = [
  {
    name: 'mount a file system',
    without: ADMIN,
    perl: mounting(`'tmpfs'`, `'tmpfs'`, `''`, `mkdir "$at/x" and 'writable'`)
  },
  {
    name: 'mount a directory elsewhere',
    without: ADMIN,
    perl: String.raw`
      my $at = directory();
      my $mounted = call('mount', '/bin', $at, '', 4096, '');
      my $why = "$!";
      call('umount2', $at, 2) if $mounted >= 0;
      rmdir $at;
      $mounted >= 0 ? reached() : refused($why);`
  },
  {
    name: 'mount a /proc without masks',
    without: ROOT,
    harmless: 'opened for writing, and nothing is written',
    perl: mounting(
      `'proc'`,
      `'proc'`,
      `''`,
      `sysopen(my $f, "$at/sys/kernel/core_pattern", 1) and 'core_pattern'`
    )
  },
  {
    name: 'mount a writable /sys',
    without: [...ROOT, 'network'],
    harmless: 'opened for writing, and nothing is written',
    perl: mounting(
      `'sysfs'`,
      `'sysfs'`,
      `''`,
      `sysopen(my $f, "$at/block/$ENV{DISK_NAME}/queue/read_ahead_kb", 1) and 'a disk'`
    )
  },
  {
    name: 'mount what the kernel shows those who debug it',
    without: ROOT,
    mayLack: 'debugfs in the kernel',
    perl: mounting(`'debugfs'`, `'debugfs'`, `''`, `entries($at) && 'entries'`)
  },
  {
    name: "mount the host's /dev",
    without: [...ROOT, 'devices'],
    harmless: "the disk is the test's own volume, and it is only opened",
    perl: mounting(`'devtmpfs'`, `'devtmpfs'`, `''`, `sysopen(my $f, "$at/$ENV{DISK_NAME}", 0) and 'a disk'`)
  },
  {
    name: 'mount a disk of the host',
    without: [...ROOT, 'devices'],
    harmless: "the disk is the test's own volume, which is mounted already",
    perl: String.raw`
      my $node = "/tmp/disk-$$";
      call('mknodat', -100, $node, 0060600, $ENV{DISK_MINOR} | $ENV{DISK_MAJOR} << 8);
      my $at = directory();
      my $mounted = call('mount', $node, $at, 'btrfs', 0, '');
      my $why = "$!";
      call('umount2', $at, 2) if $mounted >= 0;
      rmdir $at;
      unlink $node;
      $mounted >= 0 ? reached() : refused($why);`
  },
  {
    // CVE-2025-31133, without the race: here the link is there from the start.
    name: 'have its own /dev/null put over what is to be hidden',
    without: ['users', 'dev'],
    mayLack: 'a runtime that takes any file for /dev/null',
    perl: `content('${HIDDEN_FILE}') =~ /Timer/ or absent('empty'); reached();`
  },
  {
    // CVE-2025-52565. A regular file there is none that the runtime made.
    name: 'have another file shown as its console',
    without: ['users', 'dev', 'console'],
    isAtTerminal: true,
    mayLack: 'a runtime that takes any file for a terminal',
    perl: `
      -c '/dev/console' and absent('a terminal');
      content('/dev/console') =~ /Timer/ or absent('empty');
      reached();`
  },
  {
    // CVE-2025-52881, without the race: here the link that misleads the mount is there from the start.
    name: 'have its settings written elsewhere than into the kernel',
    without: ['users', 'dev'],
    mayLack: 'a runtime that writes to whatever is mounted there',
    perl: `
      my ($kernel) = stat '/proc/version' or refused($!);
      my ($written) = stat '${WRITTEN_DIRECTORY}/ping_group_range' or refused($!);
      $written != $kernel ? reached() : absent('written into the kernel');`
  },
  {
    name: 'take a mask from /proc',
    without: ROOT,
    perl: `
      need('umount2', '${HIDDEN_FILE}', 2);
      my $is_read = content('${HIDDEN_FILE}') =~ /Timer/;
      call('mount', '/dev/null', '${HIDDEN_FILE}', '', 4096, '');
      $is_read ? reached() : refused('empty');`
  },
  {
    name: 'make /proc/sys writable',
    without: ROOT,
    harmless: 'opened for writing, and nothing is written',
    perl: `
      need('mount', '', '/proc/sys', '', 32 | 4096, '');
      my $is_open = sysopen(my $setting, '/proc/sys/kernel/core_pattern', 1);
      my $why = "$!";
      call('mount', '', '/proc/sys', '', 1 | 32 | 4096, '');
      $is_open ? reached() : refused($why);`
  },
  {
    name: 'make /sys writable',
    without: ROOT,
    harmless: 'opened for writing, and nothing is written',
    perl: `
      need('mount', '', '/sys', '', 32, '');
      my $is_open = sysopen(my $setting, "/sys/block/$ENV{DISK_NAME}/queue/read_ahead_kb", 1);
      my $why = "$!";
      call('mount', '', '/sys', '', 1 | 32, '');
      $is_open ? reached() : refused($why);`
  },
  {
    name: 'change its root directory',
    without: ADMIN,
    harmless: 'there is no such directory',
    perl: `ask(2, 'pivot_root', '/no-such-directory', '/no-such-directory');`
  },
  {
    name: 'clone a mount',
    without: ADMIN,
    perl: `need('open_tree', -100, '/bin', 1); reached();`
  },
  {
    name: 'move a mount',
    without: ADMIN,
    harmless: 'the flags are wrong',
    perl: `ask(22, 'move_mount', -1, '', -1, '', 0xffffff);`
  },
  {
    name: 'open a file system that is to be mounted',
    without: ADMIN,
    perl: `need('fsopen', 'tmpfs', 0); reached();`
  },
  {
    name: 'change the attributes of a mount',
    without: ADMIN,
    harmless: 'no attribute is named',
    perl: `my $none = "\\0" x 32; need('mount_setattr', -100, '/', 0, $none, length $none); reached();`
  },
  {
    name: 'name the program that runs when a group is empty',
    without: [...ROOT, 'cgroups'],
    harmless: 'the name that was read is written back',
    mayLack: 'cgroups v1',
    perl: groupHierarchy(`
      my ($agent, $again, $name);
      sysopen($agent, "$at/release_agent", 0) and do {
        sysread $agent, $name, 4096;
        $name = "\\n" unless length $name;
        sysopen($again, "$at/release_agent", 1) and defined(syswrite $again, $name) and 'release_agent'
      }`)
  },
  {
    name: 'leave its group',
    without: [...ROOT, 'cgroups'],
    harmless: 'opened for writing, and nothing is written',
    perl: groupHierarchy(`sysopen(my $list, "$at/cgroup.procs", 1) and 'processes'`, true)
  },
  {
    name: 'change a limit of its own group',
    without: [...ROOT, 'cgroups'],
    harmless: 'opened for writing, and nothing is written',
    perl: groupHierarchy(`sysopen(my $limit, "$at$group/pids.max", 1) and 'pids.max'`, true)
  },
  {
    name: 'leave its root by chroot',
    without: ['root'],
    perl: String.raw`
      my $inner = directory();
      chroot $inner or refused($!);
      chdir '..' for 1 .. 64;
      chroot '.';
      secret($ENV{HOST_FILE});`
  },
  {
    name: 'leave its root by a directory that it opened before chroot',
    without: ['root'],
    perl: String.raw`
      my $inner = directory();
      opendir(my $above, '/') or refused($!);
      chroot $inner or refused($!);
      chdir $above or refused($!);
      chdir '..' for 1 .. 64;
      chroot '.';
      secret($ENV{HOST_FILE});`
  }
]

export const OWNER_ATTEMPTS: readonly Attempt[] = [
  {
    name: 'become an account beyond its own',
    without: ['users'],
    harmless: 'the process ends at once',
    perl: `$> = 70000; $> == 70000 or refused($!); reached();`
  },
  {
    name: 'give a file to an account beyond its own',
    without: ['users'],
    harmless: 'the file is removed at once',
    perl: String.raw`
      my $at = directory();
      my $is_given = chown 70000, 70000, $at;
      my $why = "$!";
      rmdir $at;
      $is_given ? reached() : refused($why);`
  },
  {
    name: 'make a file that the node cannot remove',
    without: ['users', 'capabilities'],
    harmless: 'the flag is taken back at once',
    perl: String.raw`
      my $at = directory();
      my $file = opened($at, 0);
      my ($immutable, $none) = (pack('q', 0x10), pack('q', 0));
      my $is_set = ioctl($file, 0x40086602, $immutable);
      my $why = "$!";
      ioctl($file, 0x40086602, $none) if $is_set;
      rmdir $at;
      $is_set ? reached() : refused($why);`
  },
  {
    name: 'instruct the kernel by an attribute of its layer',
    without: ['users', 'capabilities'],
    harmless: 'nothing is mounted over the directory, and it is removed',
    perl: String.raw`
      my $at = directory();
      my $set = call('setxattr', $at, 'trusted.overlay.redirect', '/', 1, 0);
      my $why = "$!";
      rmdir $at;
      $set == 0 ? reached() : refused($why);`
  }
]

/**
 * Mounts the hierarchy that counts processes: that of v1 where there is one, or with `either` that of v2. Controls share
 * the host's cgroup namespace, so that it is the mount that the host has already, and nothing ends with it.
 */
function groupHierarchy(look: string, either = false): string {
  const otherwise = either ? `('cgroup2', '')` : `absent('cgroups v1')`
  return String.raw`
    my $groups = content('/proc/self/cgroup');
    my ($controllers, $group) = $groups =~ /^\d+:((?:[^:]*,)?pids(?:,[^:]*)?):(.*)/m;
    my ($kind, $options) = defined $controllers ? ('cgroup', $controllers) : ${otherwise};
    ($group) = $groups =~ /^0::(.*)/m unless defined $group;
    ${mounting(`'cgroup'`, '$kind', '$options', look)}`
}

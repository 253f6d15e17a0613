/**
 * System calls for which neither Node nor a host program serves, but for netlink's (route-netlink.ts): mounts (also idmapped ones),
 * path look-up confined to a directory, signals to a process that cannot be mistaken for another, pseudo-terminals, and the
 * two calls of btrfs that every vserver waits for, where starting a program takes a hundred times as long. Loads the C library for
 * this room. Linux only.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import koffi from 'koffi'
import { SlicenetError } from '../base/errors.ts'

const SYS_PIDFD_SEND_SIGNAL = 424
const SYS_OPEN_TREE = 428
const SYS_MOVE_MOUNT = 429
const SYS_PIDFD_OPEN = 434
const SYS_OPENAT2 = 437
const SYS_MOUNT_SETATTR = 442

const AT_FDCWD = -100
const AT_EMPTY_PATH = 0x1000
const OPEN_TREE_CLONE = 1
const O_CLOEXEC = 0o2000000
const MOVE_MOUNT_F_EMPTY_PATH = 4
const MOUNT_ATTR_RDONLY = 0x1n
const MOUNT_ATTR_NODEV = 0x4n
const MOUNT_ATTR_IDMAP = 0x100000n
const MNT_DETACH = 2
const TCSANOW = 0
/** More than glibc's struct termios (60). */
const TERMIOS_BYTES_MAX = 128

/** `_IOW(0x94, 14, struct btrfs_ioctl_vol_args)` and `_IOR(0x94, 43, struct btrfs_ioctl_qgroup_limit_args)`. */
const BTRFS_IOC_SUBVOL_CREATE = 0x5000_940e
const BTRFS_IOC_QGROUP_LIMIT = 0x8030_942b
const BTRFS_VOL_ARGS_BYTES = 4096
const BTRFS_QGROUP_LIMIT_MAX_RFER = 1n

const CLONE_NEWUTS = 0x0400_0000

const TIOCSWINSZ = 0x5414
const TIOCGPTPEER = 0x5441
/** `_IOW('T', 0x31, int)` */
const TIOCSPTLCK = 0x4004_5431

export const MOUNT_FLAGS = { nosuid: 2, nodev: 4, bind: 4096, noatime: 1024 } as const

/** How `openBeneath` treats the way to the file. */
const RESOLVE_NO_XDEV = 0x01n
const RESOLVE_NO_MAGICLINKS = 0x02n
const RESOLVE_IN_ROOT = 0x10n
const OPEN_ATTEMPTS_MAX = 10_000

interface Calls {
  readonly openTree: (number: number, fd: number, path: string, flags: number) => number
  readonly mountSetattr: (
    number: number,
    fd: number,
    path: string,
    flags: number,
    attributes: Buffer,
    size: number
  ) => number
  readonly moveMount: (
    number: number,
    fromFd: number,
    from: string,
    toFd: number,
    to: string,
    flags: number
  ) => number
  readonly openat2: (number: number, fd: number, path: string, how: Buffer, size: number) => number
  readonly pidfdOpen: (number: number, pid: number, flags: number) => number
  readonly pidfdSendSignal: (number: number, fd: number, signal: number, info: null, flags: number) => number
  readonly close: (fd: number) => number
  readonly mount: (source: string, target: string, type: string, flags: number, data: string) => number
  readonly umount2: (target: string, flags: number) => number
  readonly mkdirat: (fd: number, path: string, mode: number) => number
  readonly renameat: (fromFd: number, from: string, toFd: number, to: string) => number
  readonly unlinkat: (fd: number, path: string, flags: number) => number
  readonly setns: (fd: number, type: number) => number
  readonly sethostname: (name: string, bytes: number) => number
  readonly ioctl: (fd: number, request: number, argument: Buffer) => number
  readonly ioctlNumber: (fd: number, request: number, argument: number) => number
  readonly tcgetattr: (fd: number, settings: Buffer) => number
  readonly cfmakeraw: (settings: Buffer) => void
  readonly tcsetattr: (fd: number, when: number, settings: Buffer) => number
}

/** Declares a function of the C library; of the type that it is assigned to. */
type Declare = (name: string, args: string[], result?: string) => never

/** The library is loaded at first use, so that importing the enforcer costs nothing on a peer that is no node. */
export function atFirstUse<T>(declared: (f: Declare) => T): () => T {
  let calls: T | undefined
  return () => {
    if (calls !== undefined) return calls
    // Null is the running program, whose C library is there whatever its name is.
    const libc = koffi.load(null)
    calls = declared((name, args, result = 'int') => libc.func(name, result, args) as never)
    return calls
  }
}

const calls = atFirstUse((f): Calls => ({
  openTree: f('syscall', ['long', 'int', 'str', 'uint'], 'long'),
  mountSetattr: f('syscall', ['long', 'int', 'str', 'uint', 'void *', 'size_t'], 'long'),
  moveMount: f('syscall', ['long', 'int', 'str', 'int', 'str', 'uint'], 'long'),
  openat2: f('syscall', ['long', 'int', 'str', 'void *', 'size_t'], 'long'),
  pidfdOpen: f('syscall', ['long', 'int', 'uint'], 'long'),
  pidfdSendSignal: f('syscall', ['long', 'int', 'int', 'void *', 'uint'], 'long'),
  close: f('close', ['int']),
  mount: f('mount', ['str', 'str', 'str', 'ulong', 'str']),
  umount2: f('umount2', ['str', 'int']),
  mkdirat: f('mkdirat', ['int', 'str', 'uint']),
  renameat: f('renameat', ['int', 'str', 'int', 'str']),
  unlinkat: f('unlinkat', ['int', 'str', 'int']),
  setns: f('setns', ['int', 'int']),
  sethostname: f('sethostname', ['str', 'size_t']),
  ioctl: f('ioctl', ['int', 'ulong', 'void *']),
  ioctlNumber: f('ioctl', ['int', 'ulong', 'long']),
  tcgetattr: f('tcgetattr', ['int', 'void *']),
  cfmakeraw: f('cfmakeraw', ['void *'], 'void'),
  tcsetattr: f('tcsetattr', ['int', 'int', 'void *'])
}))

/** The name of an error of the C library; by default of its last one on this thread. */
export function errnoName(number = koffi.errno()): string {
  return Object.entries(koffi.os.errno).find(([, value]) => value === number)?.[0] ?? `errno ${number}`
}

/** A failed system call: `errno` by name (`ENOENT`), so that callers can tell what they expect from what they do not. */
export class SystemCallError extends Error {
  readonly call: string
  readonly errno: string

  constructor(call: string, errno: string, subject: string) {
    super(`${call} ${subject}: ${errno}`)
    this.name = 'SystemCallError'
    this.call = call
    this.errno = errno
  }
}

function check(call: string, result: number, subject: string): number {
  if (result >= 0) return result
  throw new SystemCallError(call, errnoName(), subject)
}

export function isErrno(error: unknown, ...names: readonly string[]): boolean {
  return error instanceof SystemCallError && names.includes(error.errno)
}

/** Mounts a file system. `data` is its own option string. */
export function mount(init: {
  readonly source: string
  readonly target: string
  readonly type: string
  readonly flags?: number
  readonly data?: string
}): void {
  const result = calls().mount(init.source, init.target, init.type, init.flags ?? 0, init.data ?? '')
  check('mount', result, `${init.type} on ${init.target}`)
}

/** Takes a mount away; what still uses it keeps it until it ends. Idempotent. */
export function unmount(target: string): void {
  try {
    check('umount2', calls().umount2(target, MNT_DETACH), target)
  } catch (error) {
    if (!isErrno(error, 'EINVAL', 'ENOENT')) throw error
  }
}

/**
 * Shows the directory `source` at `target`, read-only, with every owner shifted by the mapping of the user namespace
 * behind the descriptor `userNamespaceFd`. Nothing is copied or chowned.
 * Throws `KERNEL_FEATURE_MISSING` where the kernel or the file system cannot do it.
 */
export function mountIdmapped(source: string, target: string, userNamespaceFd: number): void {
  const c = calls()
  const tree = check(
    'open_tree',
    c.openTree(SYS_OPEN_TREE, AT_FDCWD, source, OPEN_TREE_CLONE | O_CLOEXEC),
    source
  )
  try {
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd; each 64 bits.
    const attributes = Buffer.alloc(32)
    attributes.writeBigUInt64LE(MOUNT_ATTR_IDMAP | MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV, 0)
    attributes.writeBigUInt64LE(BigInt(userNamespaceFd), 24)
    const set = c.mountSetattr(SYS_MOUNT_SETATTR, tree, '', AT_EMPTY_PATH, attributes, attributes.length)
    try {
      check('mount_setattr', set, source)
    } catch (error) {
      if (!isErrno(error, 'EINVAL', 'ENOSYS', 'EOPNOTSUPP')) throw error
      throw new SlicenetError(
        'KERNEL_FEATURE_MISSING',
        `the file system of ${source} takes no idmapped mount`,
        {
          hint: 'keep images on ext4, xfs or btrfs, on Linux 5.19 or later',
          cause: error
        }
      )
    }
    const moved = c.moveMount(SYS_MOVE_MOUNT, tree, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)
    check('move_mount', moved, target)
  } finally {
    c.close(tree)
  }
}

/**
 * Opens `path` as a program whose root is the directory behind `rootFd` would: no link, absolute or with `..`, leads
 * out. Files on other mounts are refused unless `crossMounts`. The caller closes the descriptor.
 */
export function openBeneath(
  rootFd: number,
  path: string,
  flags: number,
  options: { readonly mode?: number; readonly crossMounts?: boolean } = {}
): number {
  // struct open_how: flags, mode, resolve; each 64 bits.
  const how = Buffer.alloc(24)
  how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0)
  how.writeBigUInt64LE(BigInt(options.mode ?? 0), 8)
  const resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
  how.writeBigUInt64LE(options.crossMounts === true ? resolve : resolve | RESOLVE_NO_XDEV, 16)
  for (let attempt = 1; ; attempt++) {
    const fd = calls().openat2(SYS_OPENAT2, rootFd, path, how, how.length)
    // While anything on the machine is renamed or mounted, the kernel is not sure where `..` leads, and asks to be asked again.
    if (fd >= 0 || koffi.errno() !== koffi.os.errno.EAGAIN || attempt === OPEN_ATTEMPTS_MAX) {
      return check('openat2', fd, path)
    }
  }
}

/** Makes one directory in the directory behind `fd`; `name` has no slash. */
export function makeDirectoryAt(fd: number, name: string, mode: number): void {
  check('mkdirat', calls().mkdirat(fd, name, mode), name)
}

/** Renames within the directory behind `fd`, over what is there. */
export function renameAt(fd: number, from: string, to: string): void {
  check('renameat', calls().renameat(fd, from, fd, to), to)
}

export function unlinkAt(fd: number, name: string): void {
  check('unlinkat', calls().unlinkat(fd, name, 0), name)
}

/** Makes the empty btrfs subvolume `path`, whose directory must exist. */
export function makeSubvolume(path: string): void {
  // struct btrfs_ioctl_vol_args: a descriptor that is not used here, 64 bits, and the name.
  const args = Buffer.alloc(BTRFS_VOL_ARGS_BYTES)
  if (args.write(basename(path), 8) !== Buffer.byteLength(basename(path)) || args.at(-1) !== 0) {
    throw new TypeError('the name of a subvolume is too long')
  }
  withDirectory(dirname(path), (fd) =>
    check('ioctl BTRFS_IOC_SUBVOL_CREATE', calls().ioctl(fd, BTRFS_IOC_SUBVOL_CREATE, args), path)
  )
}

/** Lets the files of the btrfs subvolume `path` refer to `bytesMax` bytes and no more. Quotas must be on. */
export function limitSubvolume(path: string, bytesMax: number): void {
  // struct btrfs_ioctl_qgroup_limit_args: the group, where 0 is that of the subvolume itself; flags, max_rfer,
  // max_excl, rsv_rfer, rsv_excl; each 64 bits.
  const args = Buffer.alloc(48)
  args.writeBigUInt64LE(BTRFS_QGROUP_LIMIT_MAX_RFER, 8)
  args.writeBigUInt64LE(BigInt(bytesMax), 16)
  withDirectory(path, (fd) =>
    check('ioctl BTRFS_IOC_QGROUP_LIMIT', calls().ioctl(fd, BTRFS_IOC_QGROUP_LIMIT, args), path)
  )
}

function withDirectory<T>(path: string, use: (fd: number) => T): T {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    return use(fd)
  } finally {
    closeSync(fd)
  }
}

/** Gives the container of process `pid`, which has a name of its own, another host name. */
export function setHostName(pid: number, name: string): void {
  const c = calls()
  // Of this thread alone, on which nothing else happens meanwhile.
  const own = openSync('/proc/thread-self/ns/uts', constants.O_RDONLY)
  try {
    const inside = openSync(`/proc/${pid}/ns/uts`, constants.O_RDONLY)
    try {
      check('setns', c.setns(inside, CLONE_NEWUTS), `the host name of process ${pid}`)
    } finally {
      closeSync(inside)
    }
    try {
      check('sethostname', c.sethostname(name, Buffer.byteLength(name)), name)
    } finally {
      check('setns', c.setns(own, CLONE_NEWUTS), 'the own host name')
    }
  } finally {
    closeSync(own)
  }
}

/** Makes a pseudo-terminal: what is written to one of the two descriptors is read from the other, as it was written (cfmakeraw(3)). */
export function openPseudoTerminal(): { readonly master: number; readonly slave: number } {
  const master = openSync('/dev/ptmx', constants.O_RDWR | constants.O_NOCTTY)
  let slave: number | undefined
  try {
    check('ioctl TIOCSPTLCK', calls().ioctl(master, TIOCSPTLCK, Buffer.alloc(4)), '/dev/ptmx')
    const flags = constants.O_RDWR | constants.O_NOCTTY | O_CLOEXEC
    slave = check('ioctl TIOCGPTPEER', calls().ioctlNumber(master, TIOCGPTPEER, flags), '/dev/ptmx')
    const settings = Buffer.alloc(TERMIOS_BYTES_MAX)
    check('tcgetattr', calls().tcgetattr(slave, settings), 'a terminal')
    calls().cfmakeraw(settings)
    check('tcsetattr', calls().tcsetattr(slave, TCSANOW, settings), 'a terminal')
    return { master, slave }
  } catch (error) {
    for (const end of [master, slave]) if (end !== undefined) closeSync(end)
    throw error
  }
}

/** Tells whoever sits at the other end how large the window is. */
export function setWindowSize(master: number, { columns, rows }: { columns: number; rows: number }): void {
  // struct winsize: rows, columns, and the same in pixels; each 16 bits.
  const size = Buffer.alloc(8)
  size.writeUInt16LE(rows, 0)
  size.writeUInt16LE(columns, 2)
  check('ioctl TIOCSWINSZ', calls().ioctl(master, TIOCSWINSZ, size), 'a terminal')
}

/**
 * Sends a signal to process `pid` if `isStillIt` says, after the process was pinned, that it is the one meant.
 * Gives whether it was sent.
 */
export function signalProcess(pid: number, signal: number, isStillIt: () => boolean): boolean {
  const c = calls()
  let fd: number
  try {
    fd = check('pidfd_open', c.pidfdOpen(SYS_PIDFD_OPEN, pid, 0), String(pid))
  } catch (error) {
    if (isErrno(error, 'ESRCH', 'EINVAL')) return false
    throw error
  }
  try {
    if (!isStillIt()) return false
    check('pidfd_send_signal', c.pidfdSendSignal(SYS_PIDFD_SEND_SIGNAL, fd, signal, null, 0), String(pid))
    return true
  } catch (error) {
    if (isErrno(error, 'ESRCH')) return false
    throw error
  } finally {
    c.close(fd)
  }
}

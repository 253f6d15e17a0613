/**
 * Turns the containers project's system call allowlist (Debian: `/usr/share/containers/seccomp.json`) into the form of
 * the OCI runtime specification for one set of capabilities, and narrows it: a vserver makes no namespaces of its own,
 * mounts nothing, and uses the native architecture and the ordinary socket families alone. Pure.
 */

export interface OciSeccompArg {
  readonly index: number
  readonly value: number
  readonly valueTwo?: number
  readonly op: string
}

export interface OciSeccompRule {
  readonly names: readonly string[]
  readonly action: string
  readonly errnoRet?: number
  readonly args?: readonly OciSeccompArg[]
}

export interface OciSeccomp {
  readonly defaultAction: string
  readonly defaultErrnoRet: number
  readonly architectures: readonly string[]
  readonly syscalls: readonly OciSeccompRule[]
}

interface Conditions {
  readonly caps?: readonly string[]
  readonly arches?: readonly string[]
}

/** The part of the containers project's format that is used here. */
export interface ContainersSeccomp {
  readonly syscalls: readonly {
    readonly names: readonly string[]
    readonly action: string
    readonly errnoRet?: number
    readonly args?: readonly OciSeccompArg[] | null
    readonly includes?: Conditions
    readonly excludes?: Conditions
  }[]
}

const ALLOW = 'SCMP_ACT_ALLOW'
const ERRNO = 'SCMP_ACT_ERRNO'
const EPERM = 1
const ENOSYS = 38
const EAFNOSUPPORT = 97

/** Node's architecture names → the profile's and the runtime's. */
const ARCHITECTURES: Readonly<Record<string, readonly [string, string]>> = {
  x64: ['amd64', 'SCMP_ARCH_X86_64'],
  arm64: ['arm64', 'SCMP_ARCH_AARCH64']
}

/**
 * Refused whatever the profile says: kernel interfaces with a long record of privilege escalations, each useless to a
 * vserver's root, who lacks CAP_SYS_ADMIN. A user namespace of its own would give it all of them back.
 */
const REFUSED = [
  'unshare',
  'setns',
  'mount',
  'mount_setattr',
  'move_mount',
  'open_tree',
  'fsopen',
  'fsconfig',
  'fsmount',
  'fspick',
  'umount',
  'umount2',
  'pivot_root',
  'keyctl',
  'add_key',
  'request_key',
  'bpf',
  'perf_event_open',
  'userfaultfd',
  'io_uring_setup',
  'io_uring_enter',
  'io_uring_register',
  'memfd_secret',
  // The kernel's log is the host's, which some hosts let everybody read.
  'syslog'
]

/** Treated apart below. */
const SPECIAL = ['clone', 'clone3', 'socket', 'socketcall', 'socketpair']

/** CLONE_NEW{CGROUP,UTS,IPC,USER,PID,NET} and CLONE_NEWNS. */
const CLONE_NAMESPACES = 0x7e020000

const AF_PACKET = 17
/** AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. */
const SOCKET_FAMILIES = [1, 2, 10, 16]

const INTERNET_FAMILIES = [2, 10]
/** The low bits of a socket's type; flags are above. */
const KIND_MASK = 0xf
const SOCK_RAW = 3
/** SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET. */
const PLAIN_KINDS = [1, 2, 5]

export interface SeccompInit {
  readonly profile: ContainersSeccomp
  /** Such as `CAP_CHOWN`. */
  readonly capabilities: readonly string[]
  /** As `process.arch` names it. */
  readonly arch: string
  /** Whether link-layer sockets (AF_PACKET) may be made. */
  readonly packetSockets: boolean
  /** Whether raw IP sockets may be made, as far as the capabilities let them. */
  readonly rawSockets: boolean
}

export function ociSeccomp(init: SeccompInit): OciSeccomp {
  const architecture = ARCHITECTURES[init.arch]
  if (architecture === undefined) throw new TypeError(`no system call profile for architecture ${init.arch}`)
  const [arch, scmpArch] = architecture
  const apart = new Set([...REFUSED, ...SPECIAL])
  const rules: OciSeccompRule[] = []
  for (const rule of init.profile.syscalls) {
    if (!applies(rule.includes, rule.excludes, init.capabilities, arch)) continue
    const names = rule.names.filter((name) => !apart.has(name))
    if (names.length === 0) continue
    rules.push({
      names,
      action: rule.action,
      ...(rule.errnoRet === undefined ? {} : { errnoRet: rule.errnoRet }),
      ...(rule.args === undefined || rule.args === null || rule.args.length === 0 ? {} : { args: rule.args })
    })
  }
  rules.push({ names: REFUSED, action: ERRNO, errnoRet: EPERM })
  rules.push({
    names: ['clone'],
    action: ALLOW,
    args: [{ index: 0, value: CLONE_NAMESPACES, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }]
  })
  // Its flags lie in memory, where a filter cannot look; the C library falls back to clone.
  rules.push({ names: ['clone3'], action: ERRNO, errnoRet: ENOSYS })
  rules.push(...socketRules(init))
  return {
    defaultAction: ERRNO,
    defaultErrnoRet: ENOSYS,
    architectures: [scmpArch],
    syscalls: rules
  }
}

/**
 * One rule for each family, since rules that overlap with different actions have no defined meaning. Asking for a pair
 * makes sockets of any family too, even where the family then knows no pairs.
 */
function socketRules({ packetSockets, rawSockets }: SeccompInit): OciSeccompRule[] {
  const allowed = new Set(packetSockets ? [...SOCKET_FAMILIES, AF_PACKET] : SOCKET_FAMILIES)
  const names = ['socket', 'socketpair']
  const rules: OciSeccompRule[] = []
  for (let family = 0; family <= AF_PACKET; family++) {
    const args = [{ index: 0, value: family, op: 'SCMP_CMP_EQ' }]
    if (!rawSockets && INTERNET_FAMILIES.includes(family)) {
      const kind = (value: number) => ({
        index: 1,
        value: KIND_MASK,
        valueTwo: value,
        op: 'SCMP_CMP_MASKED_EQ'
      })
      rules.push(...PLAIN_KINDS.map((value) => ({ names, action: ALLOW, args: [...args, kind(value)] })), {
        names,
        action: ERRNO,
        errnoRet: EPERM,
        args: [...args, kind(SOCK_RAW)]
      })
      continue
    }
    rules.push(
      allowed.has(family)
        ? { names, action: ALLOW, args }
        : // As the kernel says to who lacks the right alone.
          { names, action: ERRNO, errnoRet: family === AF_PACKET ? EPERM : EAFNOSUPPORT, args }
    )
  }
  rules.push({
    names,
    action: ERRNO,
    errnoRet: EAFNOSUPPORT,
    args: [{ index: 0, value: AF_PACKET, op: 'SCMP_CMP_GT' }]
  })
  return rules
}

function applies(
  includes: Conditions = {},
  excludes: Conditions = {},
  capabilities: readonly string[],
  arch: string
): boolean {
  const holds = (cap: string): boolean => capabilities.includes(cap)
  if (includes.caps !== undefined && !includes.caps.every(holds)) return false
  if (includes.arches !== undefined && !includes.arches.includes(arch)) return false
  if (excludes.caps?.some(holds) === true) return false
  return excludes.arches?.includes(arch) !== true
}

/**
 * Describes a vserver, and the programs in it, to an OCI runtime (the runtime specification's config.json and process
 * object): what it is contained by and what it may use. Administrative slices (paper §4.3) share the host's process list
 * and network instead. Pure.
 */
import { IDS_PER_VSERVER } from './id-ranges.ts'
import type { Resources } from '../ticket/resources.ts'
import { CAPABILITY_OF, isAdministrative, isCapabilityRight } from '../ticket/rights.ts'
import type { ProgramSpec, VserverSpec } from './enforcer.ts'
import { OPEN_FILES_SOFT } from './oci-runtime.ts'
import { DEFAULT_PATH } from './root-files.ts'
import { ociSeccomp, type ContainersSeccomp } from './seccomp.ts'

/** Where the init program stands in every vserver: a layer of its own that nobody inside can change. */
export const INIT_PATH = '/.slicenet/init'

/**
 * The paper's weaker root (§4.1): it owns files, accounts, processes and ports of its vserver, and nothing that
 * reaches a kernel interface shared with others.
 */
const CAPABILITIES = [
  'CAP_AUDIT_WRITE',
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_NET_BIND_SERVICE',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SYS_CHROOT'
]

/**
 * CAP_SETFCAP goes with CAP_NET_RAW: a package that sets a file capability which the vserver lacks would make its
 * program impossible to start; where setting it fails, packages fall back to what works.
 */
const RAW_SOCKET_CAPABILITIES = ['CAP_NET_RAW', 'CAP_SETFCAP']

const MASKED_PATHS = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/interrupts',
  '/proc/kallsyms',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/dev/block',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
  '/sys/fs/selinux'
]
const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

/** Of terminals, as Debian numbers it. */
const TTY_GROUP = 5

const CPU_PERIOD_MICROS = 100_000
/** The kernel takes no quota below 1 ms a period. */
const CPU_MILLIS_MIN = 10
/** What a cgroup gets whose shares nobody set; here the weight of one whole core. */
const SHARES_PER_CORE = 1024
const CPU_SHARES_MIN = 2

export interface OciConfigInit {
  readonly spec: VserverSpec
  /** First host id of the vserver's range. */
  readonly uidBase: number
  readonly rootPath: string
  /** Below the top of each cgroup hierarchy, such as `/slicenet-ab12/lease-1`. */
  readonly cgroupPath: string
  readonly seccompProfile: ContainersSeccomp
  readonly openFilesMax: number
  /** As `process.arch` names it. */
  readonly arch: string
}

/** Whether its root may listen below IP. */
export function mayUsePacketSockets(spec: VserverSpec): boolean {
  return spec.rights.includes(isAdministrative(spec.rights) ? 'cap-net-raw' : 'raw-socket')
}

/** What its root holds at most: in an administrative slice what was leased and nothing else, for it counts on the host. */
export function vserverCapabilities(spec: VserverSpec): readonly string[] {
  if (isAdministrative(spec.rights)) {
    return spec.rights.filter(isCapabilityRight).map((right) => CAPABILITY_OF[right])
  }
  return mayUsePacketSockets(spec) ? [...CAPABILITIES, ...RAW_SOCKET_CAPABILITIES] : CAPABILITIES
}

/**
 * What is added to an id of the vserver for its programs: nothing where a user namespace maps them, else the first host
 * id of its range, so that no program of an administrative slice is ever root of the host.
 */
function idShift({ spec, uidBase }: Pick<OciConfigInit, 'spec' | 'uidBase'>): number {
  return isAdministrative(spec.rights) ? uidBase : 0
}

export interface OciUser {
  readonly uid: number
  readonly gid: number
  readonly additionalGids: readonly number[]
  readonly home: string
}

export interface OciProcessInit {
  readonly spec: VserverSpec
  /** First host id of the vserver's range. */
  readonly uidBase: number
  readonly program: ProgramSpec
  /** `program.user`, looked up. */
  readonly user: OciUser
  /** What a process may raise its limit to; no more than this process may. */
  readonly openFilesMax: number
}

/** The process object of one program. */
export function ociProcess(init: OciProcessInit): Record<string, unknown> {
  const { program, user, openFilesMax } = init
  const isConfined = isAdministrative(init.spec.rights)
  const shift = idShift(init)
  const env = { PATH: DEFAULT_PATH, HOME: user.home, ...program.env }
  return {
    terminal: false,
    user: {
      uid: shift + user.uid,
      gid: shift + user.gid,
      additionalGids: user.additionalGids.map((gid) => shift + gid)
    },
    args: program.argv,
    env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
    cwd: program.cwd ?? '/',
    capabilities: ociCapabilities(init),
    // A core file of a crash belongs to nobody who could fetch it, and the host's core handler is not the slice's.
    rlimits: [
      { type: 'RLIMIT_CORE', soft: 0, hard: 0 },
      { type: 'RLIMIT_NOFILE', soft: Math.min(OPEN_FILES_SOFT, openFilesMax), hard: openFilesMax }
    ],
    // `su` and `sudo` inside lead to the vserver's own root and nowhere else; without a user namespace they lead nowhere.
    noNewPrivileges: isConfined
  }
}

function ociCapabilities({
  spec,
  user
}: Pick<OciProcessInit, 'spec' | 'user'>): Record<string, readonly string[]> {
  const most = vserverCapabilities(spec)
  const held = user.uid === 0 ? most : []
  if (!isAdministrative(spec.rights)) {
    return { bounding: most, effective: held, permitted: held, inheritable: [], ambient: [] }
  }
  // Its root has another number on the host than 0, and so keeps them over an exec by the ambient set alone.
  return { bounding: held, effective: held, permitted: held, inheritable: held, ambient: held }
}

const ROOT: OciUser = { uid: 0, gid: 0, additionalGids: [], home: '/root' }
/** Whom the init of an administrative slice runs as: its root, who is no kernel's root, cannot signal it. */
const KEEPER: OciUser = { uid: IDS_PER_VSERVER - 1, gid: IDS_PER_VSERVER - 1, additionalGids: [], home: '/' }

/** No namespaces of processes, of the network and of users, and no settings of the network, which are the host's. */
const SHARED_WITH_HOST = { namespaces: ociNamespaces('mount', 'uts', 'ipc', 'cgroup') }

function separateFromHost(uidBase: number): Record<string, unknown> {
  const mapping = [{ containerID: 0, hostID: uidBase, size: IDS_PER_VSERVER }]
  return {
    namespaces: ociNamespaces('user', 'pid', 'mount', 'uts', 'ipc', 'cgroup', 'network'),
    uidMappings: mapping,
    gidMappings: mapping,
    sysctl: {
      // Every account may ping and serve any port it owns: the limits stand on the host's end of the link.
      'net.ipv4.ping_group_range': `0 ${IDS_PER_VSERVER - 1}`,
      'net.ipv4.ip_unprivileged_port_start': '0'
    }
  }
}

function ociNamespaces(...types: readonly string[]): { readonly type: string }[] {
  return types.map((type) => ({ type }))
}

/** The whole config.json of a vserver, whose only process is its init. */
export function ociConfig(init: OciConfigInit): Record<string, unknown> {
  const { spec } = init
  const program = { argv: [INIT_PATH, '-P'], env: {} }
  return {
    ociVersion: '1.0.2',
    process: ociProcess({ ...init, program, user: isAdministrative(spec.rights) ? KEEPER : ROOT }),
    root: { path: init.rootPath, readonly: false },
    hostname: spec.slice,
    mounts: ociMounts(idShift(init)),
    linux: {
      ...(isAdministrative(spec.rights) ? SHARED_WITH_HOST : separateFromHost(init.uidBase)),
      cgroupsPath: init.cgroupPath,
      resources: { devices: [{ allow: false, access: 'rwm' }], ...ociLimits(spec.resources) },
      seccomp: ociSeccomp({
        profile: init.seccompProfile,
        capabilities: vserverCapabilities(spec),
        arch: init.arch,
        packetSockets: mayUsePacketSockets(spec),
        rawSockets: !isAdministrative(spec.rights)
      }),
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READONLY_PATHS
    }
  }
}

function ociMounts(shift: number): Record<string, unknown>[] {
  const mount = (destination: string, type: string, ...options: string[]): Record<string, unknown> => ({
    destination,
    type,
    source: type,
    options
  })
  return [
    mount('/proc', 'proc', 'nosuid', 'noexec', 'nodev'),
    mount('/dev', 'tmpfs', 'nosuid', 'noexec', 'strictatime', 'mode=755', 'size=65536k'),
    mount(
      '/dev/pts',
      'devpts',
      'nosuid',
      'noexec',
      'newinstance',
      'ptmxmode=0666',
      'mode=0620',
      `gid=${shift + TTY_GROUP}`
    ),
    // Its pages count against the vserver's memory.
    mount('/dev/shm', 'tmpfs', 'nosuid', 'noexec', 'nodev', 'mode=1777'),
    mount('/dev/mqueue', 'mqueue', 'nosuid', 'noexec', 'nodev'),
    mount('/sys', 'sysfs', 'nosuid', 'noexec', 'nodev', 'ro')
  ]
}

/** How much of the processor a vserver may use at most, in thousandths of a core. */
export function cpuCapMillis({ cpuMillis, cpuMillisMax }: Resources): number {
  return Math.max(cpuMillis, cpuMillisMax, CPU_MILLIS_MIN)
}

/** The weight of a vserver among others, as cgroups v1 count it. */
export function cpuShares({ cpuMillis }: Resources): number {
  return Math.max(CPU_SHARES_MIN, Math.round((cpuMillis * SHARES_PER_CORE) / 1000))
}

/** A cap as the kernel takes it: so many microseconds in every period of so many. */
export function cpuQuota(capMillis: number): { readonly quota: number; readonly period: number } {
  const millis = Math.max(capMillis, CPU_MILLIS_MIN)
  return { quota: Math.round((millis * CPU_PERIOD_MICROS) / 1000), period: CPU_PERIOD_MICROS }
}

/** The limits of a running vserver; the devices that it may use are settled when it is made. */
export function ociLimits(resources: Resources): Record<string, unknown> {
  const { memoryBytes, pids } = resources
  return {
    cpu: {
      shares: cpuShares(resources),
      ...cpuQuota(cpuCapMillis(resources))
    },
    // Memory and swap together: so no swap beyond the memory.
    memory: { limit: memoryBytes, swap: memoryBytes },
    pids: { limit: pids }
  }
}

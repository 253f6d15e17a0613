/**
 * Describes a vserver, and the programs in it, to an OCI runtime (the runtime specification's config.json and process
 * object): what it is contained by and what it may use. Pure.
 */
import { IDS_PER_VSERVER } from './id-ranges.ts'
import type { Resources } from '../ticket/resources.ts'
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

const CPU_PERIOD_MICROS = 100_000
/** The kernel takes no quota below 1 ms a period. */
const CPU_MILLIS_MIN = 10
/** What a cgroup gets whose shares nobody set; here the weight of one whole core. */
const SHARES_PER_CORE = 1024

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

export function mayUseRawSockets(spec: VserverSpec): boolean {
  return spec.rights.includes('raw-socket')
}

export function vserverCapabilities(spec: VserverSpec): readonly string[] {
  return mayUseRawSockets(spec) ? [...CAPABILITIES, ...RAW_SOCKET_CAPABILITIES] : CAPABILITIES
}

export interface OciUser {
  readonly uid: number
  readonly gid: number
  readonly additionalGids: readonly number[]
  readonly home: string
}

export interface OciProcessInit {
  readonly spec: VserverSpec
  readonly program: ProgramSpec
  /** `program.user`, looked up. */
  readonly user: OciUser
  /** What a process may raise its limit to; no more than this process may. */
  readonly openFilesMax: number
}

/** The process object of one program. */
export function ociProcess({ spec, program, user, openFilesMax }: OciProcessInit): Record<string, unknown> {
  const bounding = vserverCapabilities(spec)
  const held = user.uid === 0 ? bounding : []
  const env = { PATH: DEFAULT_PATH, HOME: user.home, ...program.env }
  return {
    terminal: false,
    user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
    args: program.argv,
    env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
    cwd: program.cwd ?? '/',
    capabilities: { bounding, effective: held, permitted: held, inheritable: [], ambient: [] },
    // A core file of a crash belongs to nobody who could fetch it, and the host's core handler is not the slice's.
    rlimits: [
      { type: 'RLIMIT_CORE', soft: 0, hard: 0 },
      { type: 'RLIMIT_NOFILE', soft: Math.min(OPEN_FILES_SOFT, openFilesMax), hard: openFilesMax }
    ],
    // `su` and `sudo` inside lead to the vserver's own root and nowhere else.
    noNewPrivileges: false
  }
}

/** The whole config.json of a vserver, whose only process is its init. */
export function ociConfig(init: OciConfigInit): Record<string, unknown> {
  const { spec } = init
  const mapping = [{ containerID: 0, hostID: init.uidBase, size: IDS_PER_VSERVER }]
  const root: OciUser = { uid: 0, gid: 0, additionalGids: [], home: '/root' }
  return {
    ociVersion: '1.0.2',
    process: ociProcess({ ...init, program: { argv: [INIT_PATH, '-P'], env: {} }, user: root }),
    root: { path: init.rootPath, readonly: false },
    hostname: spec.slice,
    mounts: ociMounts(),
    linux: {
      namespaces: ['user', 'pid', 'mount', 'uts', 'ipc', 'cgroup', 'network'].map((type) => ({ type })),
      uidMappings: mapping,
      gidMappings: mapping,
      cgroupsPath: init.cgroupPath,
      resources: { devices: [{ allow: false, access: 'rwm' }], ...ociLimits(spec.resources) },
      sysctl: {
        // Every account may ping and serve any port it owns: the limits stand on the host's end of the link.
        'net.ipv4.ping_group_range': `0 ${IDS_PER_VSERVER - 1}`,
        'net.ipv4.ip_unprivileged_port_start': '0'
      },
      seccomp: ociSeccomp({
        profile: init.seccompProfile,
        capabilities: vserverCapabilities(spec),
        arch: init.arch,
        packetSockets: mayUseRawSockets(spec)
      }),
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READONLY_PATHS
    }
  }
}

function ociMounts(): Record<string, unknown>[] {
  const mount = (destination: string, type: string, ...options: string[]): Record<string, unknown> => ({
    destination,
    type,
    source: type,
    options
  })
  return [
    mount('/proc', 'proc', 'nosuid', 'noexec', 'nodev'),
    mount('/dev', 'tmpfs', 'nosuid', 'noexec', 'strictatime', 'mode=755', 'size=65536k'),
    mount('/dev/pts', 'devpts', 'nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'),
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

/** A cap as the kernel takes it: so many microseconds in every period of so many. */
export function cpuQuota(capMillis: number): { readonly quota: number; readonly period: number } {
  const millis = Math.max(capMillis, CPU_MILLIS_MIN)
  return { quota: Math.round((millis * CPU_PERIOD_MICROS) / 1000), period: CPU_PERIOD_MICROS }
}

/** The limits of a running vserver; the devices that it may use are settled when it is made. */
export function ociLimits(resources: Resources): Record<string, unknown> {
  const { cpuMillis, memoryBytes, pids } = resources
  return {
    cpu: {
      shares: Math.max(2, Math.round((cpuMillis * SHARES_PER_CORE) / 1000)),
      ...cpuQuota(cpuCapMillis(resources))
    },
    // Memory and swap together: so no swap beyond the memory.
    memory: { limit: memoryBytes, swap: memoryBytes },
    pids: { limit: pids }
  }
}

/**
 * Whether the kernel can do what enforcement needs. Reads what the kernel says of itself; what it does not say is tried
 * where nothing of the machine's changes: in nft's check mode, and in namespaces that end with the probe.
 */
import { access, readFile } from 'node:fs/promises'
import { release } from 'node:os'
import { SlicenetError } from '../base/errors.ts'
import { runAnyway } from '../base/host-program.ts'
import { NO_DISK_LIMITS } from '../enforce/volume.ts'

export interface KernelProbe {
  readonly name: string
  readonly why: string
  /** Host programs that the probe runs, as root. */
  readonly needs?: readonly string[]
  /** What was found, in a few words; throws `KERNEL_FEATURE_MISSING` or what the probe's program threw. */
  readonly probe: (options: { readonly signal?: AbortSignal }) => Promise<string>
}

/** Overlay mounts take idmapped layers from 5.19 on. */
const KERNEL_MIN = [5, 19] as const
const PROBE_DEADLINE_MS = 10_000
/** The volume is a file that is mounted. */
const LOOP_CONTROL = '/dev/loop-control'

export const KERNEL_PROBES: readonly KernelProbe[] = [
  { name: 'kernel', why: 'idmapped layers under overlay mounts', probe: async () => kernelVersion() },
  { name: 'kernel: overlayfs', why: 'root file systems of vservers', probe: () => fileSystem('overlay') },
  { name: 'kernel: btrfs', why: 'disks of vservers and their quotas', probe: btrfsVolume },
  { name: 'kernel: user namespaces', why: 'containment of vservers', probe: userNamespaces },
  { name: 'kernel: cgroup controllers', why: 'CPU, memory and process limits', probe: cgroupControllers },
  {
    name: 'kernel: nft netdev',
    why: "source checks at the host's end of each link",
    needs: ['nft'],
    probe: nftNetdev
  },
  {
    name: 'kernel: IPv6 NAT',
    why: 'IPv6 of vservers, where the node has it',
    needs: ['nft'],
    probe: natOfIpv6
  },
  { name: 'kernel: HTB', why: 'shaping of what vservers send', needs: ['unshare', 'tc'], probe: htb }
]

function missing(message: string, hint: string): SlicenetError {
  return new SlicenetError('KERNEL_FEATURE_MISSING', message, { hint })
}

function kernelVersion(): string {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  const [needMajor, needMinor] = KERNEL_MIN
  if (major > needMajor || (major === needMajor && minor >= needMinor)) return release()
  throw missing(`the kernel is ${release()}`, `boot a kernel of at least ${KERNEL_MIN.join('.')}`)
}

/** Known to the running kernel, or a module that it loads when it is asked to mount one; `without` says what else. */
async function fileSystem(name: string, without?: string): Promise<string> {
  const known = await readFile('/proc/filesystems', 'utf8')
  if (known.split('\n').some((line) => line.split('\t').at(-1) === name)) return 'in the kernel'
  const modules = `/lib/modules/${release()}`
  for (const list of ['modules.builtin', 'modules.dep']) {
    const text = await readFile(`${modules}/${list}`, 'utf8').catch(() => '')
    if (new RegExp(`/${name}\\.ko(?:\\.\\w+)?(?::|$)`, 'm').test(text)) return 'as a module'
  }
  const consequence = without === undefined ? '' : `, so ${without}`
  throw missing(`the kernel has no ${name}${consequence}`, `boot a kernel with ${name}, such as Debian's`)
}

/** A node starts without it all the same, so what it lacks then is said here. */
async function btrfsVolume(): Promise<string> {
  const hasLoop = await access(LOOP_CONTROL).then(
    () => true,
    () => false
  )
  if (!hasLoop) throw missing(`there is no ${LOOP_CONTROL}, so ${NO_DISK_LIMITS}`, 'modprobe loop')
  return fileSystem('btrfs', NO_DISK_LIMITS)
}

async function userNamespaces(): Promise<string> {
  const text = await readFile('/proc/sys/user/max_user_namespaces', 'utf8').catch(() => '0')
  const most = Number(text.trim())
  if (most > 0) return `up to ${most}`
  throw missing('user namespaces are off', 'sysctl user.max_user_namespaces=15000')
}

const CONTROLLERS = ['cpu', 'memory', 'pids'] as const

async function cgroupControllers(): Promise<string> {
  const unified = await readFile('/sys/fs/cgroup/cgroup.controllers', 'utf8').catch(() => '')
  if (CONTROLLERS.every((name) => unified.split(/\s+/).includes(name))) return 'cgroups v2'
  const mounts = await readFile('/proc/self/mounts', 'utf8')
  const mounted = new Set(
    mounts
      .split('\n')
      .map((line) => line.split(' '))
      .filter(([, , type]) => type === 'cgroup')
      .flatMap(([, , , options = '']) => options.split(','))
  )
  const lacking = CONTROLLERS.filter((name) => !mounted.has(name))
  if (lacking.length === 0) return 'cgroups v1'
  throw missing(`no cgroup controller ${lacking.join(', ')} is mounted`, 'mount cgroups as systemd does')
}

type Options = { readonly signal?: AbortSignal }

async function nftNetdev(options: Options): Promise<string> {
  // Checked by the kernel and then dropped, never put in force.
  const chain = 'chain c {\n type filter hook ingress device "lo" priority 0\n }'
  const rules = `table netdev slicenet-doctor {\n ${chain}\n}\n`
  const tried = await runAnyway('nft', ['--check', '--file', '-'], {
    input: rules,
    deadlineMs: PROBE_DEADLINE_MS,
    ...options
  })
  if (tried.exitCode === 0) return 'works'
  throw missing(
    `nft cannot make a netdev chain: ${firstLine(tried.stderr)}`,
    'boot a kernel with CONFIG_NF_TABLES_NETDEV'
  )
}

async function natOfIpv6(options: Options): Promise<string> {
  const setting = '/proc/sys/net/ipv6/conf/default/disable_ipv6'
  const isOff = (await readFile(setting, 'utf8').catch(() => '1')).trim() !== '0'
  if (isOff) return 'not needed: new devices have no IPv6'
  const rule = 'meta l4proto tcp snat to [2001:db8::1]:40000-60999'
  const chain = `chain c {\n type nat hook postrouting priority 100\n ${rule}\n }`
  const tried = await runAnyway('nft', ['--check', '--file', '-'], {
    input: `table ip6 slicenet-doctor {\n ${chain}\n}\n`,
    deadlineMs: PROBE_DEADLINE_MS,
    ...options
  })
  if (tried.exitCode === 0) return 'works'
  throw missing(
    `nft cannot translate IPv6 addresses: ${firstLine(tried.stderr)}`,
    'boot a kernel with CONFIG_NFT_NAT and CONFIG_NF_TABLES_IPV6, or write `address6: none` in the node’s configuration'
  )
}

async function htb(options: Options): Promise<string> {
  const command = ['tc', 'qdisc', 'add', 'dev', 'lo', 'root', 'handle', '1:', 'htb', 'default', '1']
  const tried = await runAnyway('unshare', ['--net', '--', ...command], {
    deadlineMs: PROBE_DEADLINE_MS,
    ...options
  })
  if (tried.exitCode === 0) return 'works'
  throw missing(
    `tc cannot make an HTB qdisc: ${firstLine(tried.stderr)}`,
    'boot a kernel with CONFIG_NET_SCH_HTB'
  )
}

function firstLine(text: string): string {
  return (text.trim().split('\n')[0] ?? '').slice(0, 200)
}

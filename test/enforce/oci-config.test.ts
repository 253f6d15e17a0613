import test from 'ava'
import type { OciSeccomp } from '../../src/enforce/seccomp.ts'
import { ociConfig, ociProcess } from '../../src/enforce/oci-config.ts'
import { IDS_PER_VSERVER, nodeUidBase } from '../../src/enforce/id-ranges.ts'
import { vserverSpec } from './enforcer-contract.ts'

interface Config {
  readonly linux: {
    readonly sysctl?: unknown
    readonly maskedPaths: string[]
    readonly readonlyPaths: string[]
    readonly namespaces: { readonly type: string; readonly path?: string }[]
    readonly uidMappings: unknown
    readonly gidMappings: unknown
    readonly resources: Record<string, Record<string, number>>
    readonly seccomp: OciSeccomp
  }
  readonly mounts: { readonly type: string; readonly options: string[] }[]
  readonly process: {
    readonly user: { readonly uid: number; readonly gid: number; readonly additionalGids: number[] }
    readonly capabilities: Record<string, string[]>
    readonly noNewPrivileges: boolean
  }
  readonly hostname: string
}

const image = `sha256:${'1'.repeat(64)}`

function configOf(over: Parameters<typeof vserverSpec>[1] = {}): Config {
  return ociConfig({
    spec: vserverSpec(image, over),
    uidBase: 131_072,
    rootPath: '/run/x/root',
    cgroupPath: '/slicenet-x/contract-1',
    seccompProfile: { syscalls: [{ names: ['read'], action: 'SCMP_ACT_ALLOW' }] },
    openFilesMax: 4096,
    arch: 'x64'
  }) as unknown as Config
}

test('every namespace is new and ids map into the vserver’s range alone', (t) => {
  const { linux } = configOf()
  t.deepEqual(linux.namespaces.map(({ type }) => type).sort(), [
    'cgroup',
    'ipc',
    'mount',
    'network',
    'pid',
    'user',
    'uts'
  ])
  t.true(linux.namespaces.every(({ path }) => path === undefined))
  const mapping = [{ containerID: 0, hostID: 131_072, size: IDS_PER_VSERVER }]
  t.deepEqual(linux.uidMappings, mapping)
  t.deepEqual(linux.gidMappings, mapping)
})

test('nothing of the host is mounted', (t) => {
  for (const { type, options } of configOf().mounts) {
    t.true(['proc', 'tmpfs', 'devpts', 'mqueue', 'sysfs'].includes(type))
    t.true(options.includes('nosuid'))
    t.false(options.includes('bind'))
  }
})

test('NET_RAW comes with the right and with nothing else', (t) => {
  t.false(configOf({ rights: ['other'] }).process.capabilities.bounding!.includes('CAP_NET_RAW'))
  t.true(configOf({ rights: ['raw-socket'] }).process.capabilities.bounding!.includes('CAP_NET_RAW'))
  for (const cap of ['CAP_SYS_ADMIN', 'CAP_NET_ADMIN', 'CAP_SYS_PTRACE', 'CAP_MKNOD', 'CAP_SYS_MODULE']) {
    t.false(configOf({ rights: ['raw-socket'] }).process.capabilities.bounding!.includes(cap), cap)
  }
})

test('amounts become shares, quota and limits', (t) => {
  const resources = {
    ...vserverSpec(image).resources,
    cpuMillis: 500,
    cpuMillisMax: 1500,
    memoryBytes: 1 << 26,
    pids: 40
  }
  t.like(configOf({ resources }).linux.resources, {
    cpu: { shares: 512, quota: 150_000, period: 100_000 },
    memory: { limit: 1 << 26, swap: 1 << 26 },
    pids: { limit: 40 }
  })
  // The kernel refuses less; a cap below the guarantee would break it.
  t.is(
    configOf({ resources: { ...resources, cpuMillis: 0, cpuMillisMax: 0 } }).linux.resources.cpu!.quota,
    1000
  )
  t.is(configOf({ resources: { ...resources, cpuMillisMax: 0 } }).linux.resources.cpu!.quota, 50_000)
  t.is(configOf({ resources: { ...resources, cpuMillis: 0 } }).linux.resources.cpu!.shares, 2)
})

test('an account that is not root holds no capability, but may gain root inside', (t) => {
  const user = { uid: 1000, gid: 1000, additionalGids: [], home: '/home/x' }
  const program = { argv: ['x'], env: { HOME: '/mine', A: 'b' } }
  const process = ociProcess({
    spec: vserverSpec(image),
    uidBase: 131_072,
    program,
    user,
    openFilesMax: 4096
  }) as {
    capabilities: Record<string, string[]>
    env: string[]
    noNewPrivileges: boolean
  }
  t.deepEqual(process.capabilities.effective, [])
  t.true(process.capabilities.bounding!.includes('CAP_SETUID'))
  t.false(process.noNewPrivileges)
  t.true(process.env.includes('HOME=/mine') && process.env.includes('A=b'))
})

test('the id windows of nodes on one machine never meet', (t) => {
  t.true(nodeUidBase(1) - nodeUidBase(0) >= 512 * IDS_PER_VSERVER)
  t.true(nodeUidBase(0) >= 512 * IDS_PER_VSERVER)
  t.throws(() => nodeUidBase(1000), { instanceOf: TypeError })
  t.throws(() => nodeUidBase(-1), { instanceOf: TypeError })
})

const ADMINISTRATIVE = ['administrative', 'cap-net-raw', 'cap-kill']

test('an administrative slice shares processes, network and users with the host, and nothing else', (t) => {
  const { linux, process, mounts } = configOf({ rights: ADMINISTRATIVE })
  t.deepEqual(
    linux.namespaces.map(({ type }) => type),
    ['mount', 'uts', 'ipc', 'cgroup']
  )
  t.deepEqual([linux.uidMappings, linux.gidMappings, linux.sysctl], [undefined, undefined, undefined])
  const plain = configOf()
  t.deepEqual(linux.maskedPaths, plain.linux.maskedPaths)
  t.deepEqual(linux.readonlyPaths, plain.linux.readonlyPaths)
  t.deepEqual(linux.resources, plain.linux.resources)
  // Its init holds nothing, as a user of the vserver's range that is nobody else's.
  t.deepEqual(process.user, { uid: 131_072 + 65_535, gid: 131_072 + 65_535, additionalGids: [] })
  for (const set of Object.values(process.capabilities)) t.deepEqual(set, [])
  t.true(process.noNewPrivileges)
  t.true(mounts.some(({ options }) => options.includes(`gid=${131_072 + 5}`)))
})

test('its root is no root of the host, and holds what was leased in every set; its other accounts hold nothing', (t) => {
  const processOf = (uid: number, rights: readonly string[]): Config['process'] =>
    ociProcess({
      spec: vserverSpec(image, { rights }),
      uidBase: 131_072,
      program: { argv: ['x'], env: {} },
      user: { uid, gid: uid, additionalGids: [7], home: '/' },
      openFilesMax: 4096
    }) as unknown as Config['process']
  const root = processOf(0, ADMINISTRATIVE)
  t.deepEqual(root.user, { uid: 131_072, gid: 131_072, additionalGids: [131_079] })
  const held = ['CAP_NET_RAW', 'CAP_KILL']
  t.deepEqual(root.capabilities, {
    bounding: held,
    effective: held,
    permitted: held,
    inheritable: held,
    ambient: held
  })
  for (const set of Object.values(processOf(1000, ADMINISTRATIVE).capabilities)) t.deepEqual(set, [])
  t.true(processOf(1000, ADMINISTRATIVE).noNewPrivileges)
  // Names of capabilities change nothing of an ordinary vserver, should they ever come so far.
  const { linux, process } = configOf({ rights: ['cap-net-raw', 'cap-kill', 'cap-sys-time'] })
  t.deepEqual(linux, configOf().linux)
  t.deepEqual(process, configOf().process)
})

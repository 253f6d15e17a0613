/**
 * The devnet's hosts as network namespaces of one machine, each with one uplink to a router namespace that forwards
 * between them (design §2). No device, address or packet of theirs is ever in the machine's own network namespace.
 */
import { readdir, readlink, stat, unlink } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { SlicenetError } from '../base/errors.ts'
import { run, runAnyway } from '../base/host-program.ts'
import { LIMITS } from '../base/limits.ts'
import { lanAddress, lanLinks, lanWork, type Lan } from './devnet-lan.ts'

export const NAMESPACES_DIRECTORY = '/run/netns'
const ROUTER = 'router'
const KILL_ROUNDS_MAX = 50

export interface DevnetNetworkInit {
  /** `[a-z0-9]{1,16}`: without a dash, so that one devnet's namespaces are never taken for another's. */
  readonly name: string
  /** Each `[a-z0-9][a-z0-9-]{0,31}`, none called `router`. May be empty when only `down` is wanted. */
  readonly hosts: readonly string[]
  /** More hosts, each LAN of them behind a NAT. Names of gateways and hosts are as above. */
  readonly lans?: readonly Lan[]
}

export interface DevnetNetwork {
  /**
   * Makes the namespaces, the router and the links; unwinds when it fails half-way.
   * Throws `NAME_TAKEN` when namespaces of that name exist, `HOST_PROGRAM_FAILED`.
   */
  up(): Promise<void>
  /** The host's IPv4 address, from 198.18.0.0/15; that of a host on a LAN from 192.168.0.0/16. Throws `NOT_FOUND`. */
  address(host: string): string
  /**
   * The argument vector to put before a program that shall run on the host. Only the network namespace is entered:
   * the machine's mounts, /sys/fs/cgroup above all, stay as they are.
   */
  enter(host: string): string[]
  /** Ends what still runs in the namespaces and removes them. Idempotent; needs nothing but the devnet's name. */
  down(): Promise<void>
}

export function createDevnetNetwork(init: DevnetNetworkInit): DevnetNetwork {
  checkNames(init)
  const { name, lans = [] } = init
  const hosts = [...init.hosts, ...lans.map(({ gateway }) => gateway)]
  const all = [...hosts, ...lans.flatMap((lan) => lan.hosts)]
  const indexOf = (host: string): number => {
    const index = all.indexOf(host)
    if (index === -1) throw new SlicenetError('NOT_FOUND', `the devnet ${name} has no host ${host}`)
    return index
  }
  return {
    async up() {
      const present = await devnetNamespaces(name)
      if (present.length > 0) {
        throw new SlicenetError('NAME_TAKEN', `a devnet ${name} is up: ${present.join(', ')}`, {
          hint: `run \`slicenet devnet down --name ${name}\` first`
        })
      }
      try {
        await bringUp(name, hosts, lans)
      } catch (error) {
        await takeDown(name).catch(() => {})
        throw error
      }
    },
    address(host) {
      const index = indexOf(host)
      if (index < hosts.length) return hostAddress(index)
      const lan = lans.findIndex((each) => each.hosts.includes(host))
      return lanAddress(lan, lans[lan]?.hosts.indexOf(host) ?? 0)
    },
    enter: (host) => enterNamespace(namespaceName(name, all[indexOf(host)] ?? host)),
    down: () => takeDown(name)
  }
}

/** Names of the devnet's network namespaces that exist now. */
export async function devnetNamespaces(name: string): Promise<string[]> {
  const names = await readdir(NAMESPACES_DIRECTORY).catch(() => [])
  return names.filter((entry) => entry.startsWith(`slicenet-${name}-`)).sort()
}

/** Ids of the processes, this one aside, whose network namespace is one of those named. */
export async function processesIn(namespaces: readonly string[]): Promise<number[]> {
  const inodes = new Set<string>()
  for (const namespace of namespaces) {
    const found = await stat(`${NAMESPACES_DIRECTORY}/${namespace}`).catch(() => undefined)
    if (found !== undefined) inodes.add(`net:[${found.ino}]`)
  }
  if (inodes.size === 0) return []
  const inside: number[] = []
  for (const entry of await readdir('/proc')) {
    const pid = Number(entry)
    if (!Number.isInteger(pid) || pid === process.pid) continue
    const link = await readlink(`/proc/${pid}/ns/net`).catch(() => '')
    if (inodes.has(link)) inside.push(pid)
  }
  return inside
}

function namespaceName(name: string, host: string): string {
  return `slicenet-${name}-${host}`
}

function enterNamespace(namespace: string): string[] {
  return ['nsenter', `--net=${NAMESPACES_DIRECTORY}/${namespace}`]
}

/** Every host has a /24 of its own from 198.18.0.0/15: the router is .1, the host .2. */
function subnet(index: number): string {
  const number = index + 1
  return `198.${18 + (number >> 8)}.${number & 0xff}`
}

function hostAddress(index: number): string {
  return `${subnet(index)}.2`
}

async function bringUp(name: string, hosts: readonly string[], lans: readonly Lan[]): Promise<void> {
  const namespaceOf = (host: string): string => namespaceName(name, host)
  const all = [...hosts, ...lans.flatMap((lan) => lan.hosts)]
  const router = namespaceName(name, ROUTER)
  const links = hosts.map(
    (host, index) =>
      `link add name h${index} netns ${router} type veth peer name up0 netns ${namespaceName(name, host)}`
  )
  await run('ip', ['-batch', '-'], {
    input: lines([
      ...[router, ...all.map(namespaceOf)].map((each) => `netns add ${each}`),
      ...links,
      ...lanLinks(lans, namespaceOf)
    ])
  })
  // The links have no IPv6 address, and so send nothing by themselves.
  const routerSide = hosts.flatMap((_, index) => [
    `addr add ${subnet(index)}.1/24 dev h${index}`,
    `link set h${index} addrgenmode none up`
  ])
  await Promise.all([
    inNamespace(router, ['ip', '-batch', '-'], lines(['link set lo up', ...routerSide])),
    inNamespace(router, ['tee', '/proc/sys/net/ipv4/ip_forward'], '1'),
    ...hosts.map((host, index) =>
      inNamespace(
        namespaceName(name, host),
        ['ip', '-batch', '-'],
        lines([
          'link set lo up',
          `addr add ${hostAddress(index)}/24 dev up0`,
          'link set up0 addrgenmode none up',
          `route add default via ${subnet(index)}.1 dev up0`
        ])
      )
    )
  ])
  await Promise.all(
    lanWork(lans, namespaceOf).map(async ({ namespace, argv, input }) => inNamespace(namespace, argv, input))
  )
}

async function takeDown(name: string): Promise<void> {
  const namespaces = await devnetNamespaces(name)
  if (namespaces.length === 0) return
  await endProcesses(namespaces)
  // With -force the batch goes on past a namespace whose mount a crash has already undone; its file is left then.
  await runAnyway('ip', ['-force', '-batch', '-'], {
    input: lines(namespaces.map((namespace) => `netns del ${namespace}`))
  })
  for (const namespace of await devnetNamespaces(name)) await unlink(`${NAMESPACES_DIRECTORY}/${namespace}`)
}

/** A process keeps its namespace alive after the name is gone, so it must end first. */
async function endProcesses(namespaces: readonly string[]): Promise<void> {
  for (let round = 0; round < KILL_ROUNDS_MAX; round++) {
    const pids = await processesIn(namespaces)
    if (pids.length === 0) return
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It ended by itself meanwhile.
      }
    }
    await delay(20)
  }
  throw new SlicenetError('TIMEOUT', `processes in ${namespaces.join(', ')} do not end`)
}

async function inNamespace(namespace: string, argv: readonly string[], input: string): Promise<void> {
  const [program, ...args] = [...enterNamespace(namespace), ...argv]
  await run(program ?? 'nsenter', args, { input })
}

function lines(commands: readonly string[]): string {
  return `${commands.join('\n')}\n`
}

function checkNames({ name, lans = [], ...init }: DevnetNetworkInit): void {
  const hosts = [...init.hosts, ...lans.flatMap((lan) => [lan.gateway, ...lan.hosts])]
  if (!/^[a-z0-9]{1,16}$/.test(name)) {
    throw new SlicenetError('CONFIG_INVALID', `a devnet cannot be called ${JSON.stringify(name)}`, {
      hint: 'use 1 to 16 letters and digits'
    })
  }
  const wrong = hosts.find((host) => host === ROUTER || !/^[a-z0-9][a-z0-9-]{0,31}$/.test(host))
  if (wrong !== undefined || new Set(hosts).size !== hosts.length) {
    throw new SlicenetError('CONFIG_INVALID', `hosts cannot be called ${JSON.stringify(hosts)}`, {
      hint: 'use distinct names of 1 to 32 letters, digits and dashes; `router` is taken'
    })
  }
  if (hosts.length > LIMITS.devnetHostsMax) {
    throw new SlicenetError('CONFIG_INVALID', `a devnet has at most ${LIMITS.devnetHostsMax} hosts`)
  }
}

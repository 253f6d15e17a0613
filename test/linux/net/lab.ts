/**
 * A world and a node in network namespaces of their own, with stand-ins for vservers: processes in user and network
 * namespaces of their own, as an OCI runtime makes them.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFile, readlink, rm } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { run, start } from '../../../src/base/host-program.ts'
import { createDevnetNetwork } from '../../../src/daemon/devnet-network.ts'
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import type { NetworkCounters } from '../../../src/enforce/network/network-counters.ts'
import type { VserverLink } from '../../../src/enforce/network.ts'
import type { NodeNetworkInit } from '../../../src/enforce/network/node-link.ts'
import type { DropReason } from '../../../src/enforce/network/drop-chains.ts'
import type { Refusal } from '../../../src/enforce/network/source-check.ts'
import type { PortRange } from '../../../src/ticket/ports.ts'
import { NO_RESOURCES, type Resources } from '../../../src/ticket/resources.ts'
import { ownDirectory, ownName } from '../own-names.ts'

const MEGABIT = 1_000_000
const PLENTY_BYTES = 1e15

/** How many times longer than else tests send and listen; more than one where the processor is emulated. */
export const PATIENCE = Number(process.env.SLICENET_TEST_PATIENCE ?? 1)

/** What a probe saw of one packet. */
export interface Seen {
  readonly src: string
  readonly dst: string
  readonly proto?: 'tcp' | 'udp' | 'icmp' | 'gre'
  readonly sport?: number
  readonly dport?: number
  readonly flags?: number
  readonly type?: number
  readonly code?: number
  readonly id?: number
  readonly key?: number
  /** Whether all checksums are right. */
  readonly ok: boolean
  readonly size: number
  readonly inner?: Seen
}

export interface Vserver {
  readonly id: string
  readonly pid: number
  readonly probe: LineProgram
  readonly address: string
}

/** A program that answers each line of JSON by a line of JSON. */
export class LineProgram {
  readonly #child: ChildProcess
  readonly #answers: AsyncIterator<string>
  #last: Promise<unknown> = Promise.resolve()

  constructor(argv: readonly string[]) {
    const [program = '', ...args] = argv
    this.#child = start(program, args, ['pipe', 'pipe', 'inherit'])
    if (this.#child.stdout === null) throw new Error('no output')
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  /** The next line's `result`; throws its `error`. */
  async answer<T>(): Promise<T> {
    const line = await this.#answers.next()
    if (line.done === true) throw new Error(`${this.#child.spawnargs.join(' ')} has ended`)
    const { result, error } = JSON.parse(line.value) as { result?: T; error?: { code?: string } | string }
    if (error !== undefined) throw Object.assign(new Error(JSON.stringify(error)), error)
    return result as T
  }

  async ask<T>(request: object): Promise<T> {
    const mine = this.#last.then(async () => {
      this.#child.stdin?.write(`${JSON.stringify(request)}\n`)
      return this.answer<T>()
    })
    this.#last = mine.catch(() => {})
    return mine
  }

  async end(): Promise<void> {
    await end(this.#child)
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

/** Where no uplinks are named, there is one of these rates. */
type LabNetwork = Partial<NodeNetworkInit> & {
  readonly rootBps?: number
  readonly nodeBps?: number
  readonly nodeAddress6?: string
}

export interface LabInit {
  /** One letter, distinct in each test file. */
  readonly letter: string
  /** Besides `world` and `node`. */
  readonly hosts?: readonly string[]
  readonly network?: LabNetwork
  /** Whether the hosts have IPv6 as well, of addresses for examples. */
  readonly hasSix?: boolean
  /** A second uplink `up1` of the node, straight to the world. */
  readonly second?: SecondUplink
}

interface SecondUplink {
  /** The first three bytes of the addresses at it: the world's ends in 1, the node's in 2. */
  readonly net: string
  /** An address that the world has behind it. */
  readonly far: string
}

export class Lab {
  readonly name: string
  readonly #init: LabInit
  readonly #hosts
  readonly #children: { end(): Promise<void> }[] = []
  readonly #standIns = new Map<number, { end(): Promise<void> }>()
  readonly #probes = new Map<number, LineProgram>()
  #stateDirectory = ''
  #node: LineProgram | undefined
  world!: LineProgram

  constructor(init: LabInit) {
    this.#init = init
    this.name = ownName(init.letter)
    this.#hosts = createDevnetNetwork({ name: this.name, hosts: this.#hostNames })
  }

  get nodeAddress(): string {
    return this.#hosts.address('node')
  }

  /** Of the node. */
  get stateDirectory(): string {
    return this.#stateDirectory
  }

  get worldAddress(): string {
    return this.#hosts.address('world')
  }

  addressOf(host: string): string {
    return this.#hosts.address(host)
  }

  /** Of a lab that has IPv6. */
  sixOf(host: string): string {
    return sixOf(this.#hostNames.indexOf(host))
  }

  get #hostNames(): string[] {
    return ['world', 'node', ...(this.#init.hosts ?? [])]
  }

  /** Path of a host's network namespace, of the router's too. */
  namespaceOf(host: string): string {
    return `/run/netns/slicenet-${this.name}-${host}`
  }

  async up(): Promise<void> {
    this.#stateDirectory = await ownDirectory(this.#init.letter)
    await this.#hosts.up()
    if (this.#init.hasSix === true) await giveSix(this.name, this.#hostNames)
    if (this.#init.second !== undefined) await this.makeSecond(this.#init.second)
    await this.startNode()
    this.world = await this.#probe(this.#hosts.enter('world'), 'up0')
  }

  async down(): Promise<void> {
    await Promise.all(this.#children.map((child) => child.end()))
    await this.#node?.end()
    await this.#hosts.down()
    await rm(this.#stateDirectory, { recursive: true, force: true })
  }

  /** Starts the node's network in a process of its own, as a daemon does; `through` a program that runs its arguments. */
  async startNode(change: LabNetwork = {}, through: readonly string[] = []): Promise<void> {
    const merged = { ...this.#init.network, ...change }
    const { rootBps = 10_000 * MEGABIT, nodeBps = MEGABIT, nodeAddress6: address6, ...named } = merged
    const init: NodeNetworkInit = {
      uplinks: [{ address6, rootBps, nodeBps }],
      reservedPorts: [{ protocol: 'tcp', first: 4001, last: 4001 }],
      allowedPrivateRanges: ['198.18.0.0/15', ...(this.#init.hasSix === true ? ['2001:db8::/32'] : [])],
      stateDirectory: this.#stateDirectory,
      ...named
    }
    const program = fileURLToPath(new URL('node-process.ts', import.meta.url))
    this.#node = new LineProgram([
      ...this.#hosts.enter('node'),
      ...through,
      process.execPath,
      program,
      JSON.stringify(init)
    ])
    await this.ask({ op: 'start' })
  }

  /** Ends the daemon as a crash does. */
  async killNode(): Promise<void> {
    await this.#node?.end()
  }

  async ask<T>(request: object): Promise<T> {
    if (this.#node === undefined) throw new Error('the node is not started')
    return this.#node.ask<T>(request)
  }

  /** The rate that the uplink's queue guarantees to the vserver of a link's number, as tc prints it; undefined where it has none. */
  async guaranteed(device: string, index: number): Promise<string | undefined> {
    const shown = await this.onNode(['tc', 'class', 'show', 'dev', device]).catch(() => '')
    const { vserverClass } = planLink(index)
    return new RegExp(`^class htb 51ce:${vserverClass} .* rate (\\S+) ceil`, 'm').exec(shown)?.[1]
  }

  /** The bytes sent for a vserver once its queues are empty. */
  async settledBytes(id: string): Promise<number> {
    let last = -1
    for (let round = 0; round < 50; round++) {
      const bytes = await this.ask<number>({ op: 'egressBytes', id })
      if (bytes === last) return bytes
      last = bytes
      await delay(150)
    }
    throw new Error('the queues do not empty')
  }

  async counters(): Promise<
    Pick<NetworkCounters, 'drops' | 'injected'> & {
      readonly dropped: Record<string, Record<DropReason, number>>
      readonly refused: Record<string, Record<Refusal, number>>
    }
  > {
    return this.ask({ op: 'counters' })
  }

  /** A process in user and network namespaces of its own. */
  async standIn(): Promise<number> {
    const child = start(
      'unshare',
      ['--user', '--map-root-user', '--net', 'sleep', String(300 * PATIENCE)],
      'ignore',
      // Nothing else tells whose it is where this process was killed.
      { env: { HOME: this.#stateDirectory } }
    )
    const pid = child.pid
    if (pid === undefined) throw new Error('unshare does not start')
    const standIn = { end: async () => end(child) }
    this.#children.push(standIn)
    this.#standIns.set(pid, standIn)
    const own = await readlink('/proc/self/ns/net')
    for (let round = 0; round < 500; round++) {
      const [namespace, map, command] = await Promise.all([
        readlink(`/proc/${pid}/ns/net`).catch(() => own),
        readFile(`/proc/${pid}/uid_map`, 'utf8').catch(() => ''),
        readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')
      ])
      if (namespace !== own && /^\s+0\s/.test(map) && command.trim() === 'sleep') return pid
      await delay(5)
    }
    throw new Error('the stand-in has no namespaces')
  }

  link(
    id: string,
    pid: number,
    ports: readonly PortRange[] = [],
    resources: Partial<Resources> = {}
  ): VserverLink {
    return { id, pid, ports, resources: { ...NO_RESOURCES, egressBytesPerDay: PLENTY_BYTES, ...resources } }
  }

  /** A stand-in, attached, with a probe in it. */
  async vserver(
    id: string,
    ports: readonly PortRange[] = [],
    resources: Partial<Resources> = {},
    more: Partial<VserverLink> = {}
  ): Promise<Vserver> {
    const pid = await this.standIn()
    const link = { ...this.link(id, pid, ports, resources), ...more }
    const { address } = await this.ask<{ address: string }>({ op: 'attach', link })
    return { id, pid, address, probe: await this.probeIn(pid, 'eth0') }
  }

  async probeIn(pid: number, device: string): Promise<LineProgram> {
    const probe = await this.#probe(insideOf(pid), device)
    this.#probes.set(pid, probe)
    return probe
  }

  /** Ends a stand-in with all that runs in it; its namespaces go with it, some time later. */
  async endStandIn(pid: number): Promise<void> {
    await this.#probes.get(pid)?.end()
    await this.#standIns.get(pid)?.end()
    // The kernel takes the devices of a dead namespace away in its own time.
    const links = async (): Promise<number> => (await this.onNode(['ip', '-o', 'link'])).split('\n').length
    const before = await links()
    for (let round = 0; round < 100 && (await links()) === before; round++) await delay(20)
  }

  /** Runs a program on the node. */
  async onNode(argv: readonly string[], input?: string): Promise<string> {
    const [program = '', ...args] = [...this.#hosts.enter('node'), ...argv]
    return run(program, args, input === undefined ? {} : { input })
  }

  /** A table as nft lists it, without numbers that count, and without the source check's base chains, which stand for links to come. */
  async table(...name: readonly [family: string, name: string]): Promise<string> {
    const shown = await this.onNode(['nft', '-s', 'list', 'table', ...name])
    return shown.replace(/\n\tchain links_from_\d+ \{[^]*?\n\t\}\n/g, '')
  }

  async nft(text: string): Promise<void> {
    await this.onNode(['nft', '-f', '-'], text)
  }

  /** Runs a program on a host or the router. */
  async inHost(host: string, argv: readonly string[], input = ''): Promise<string> {
    return run('nsenter', [`--net=${this.namespaceOf(host)}`, ...argv], { input })
  }

  /** Makes the world and the router send packets for inside addresses to the node, as a hostile neighbour can. */
  async routeVserversFromWorld(): Promise<void> {
    const add = ['ip', 'route', 'add', '100.64.0.0/10', 'via']
    await run('nsenter', [`--net=${this.namespaceOf('router')}`, ...add, this.nodeAddress])
  }

  /** Makes the router send packets for an address that the world has behind its second link to the world. */
  async routeFarFromRouter(far: string): Promise<void> {
    const add = ['ip', 'route', 'add', far, 'via', this.worldAddress]
    await run('nsenter', [`--net=${this.namespaceOf('router')}`, ...add])
  }

  /** Takes the node's uplink away, as unplugging its card does. */
  async removeUplink(): Promise<void> {
    await this.onNode(['ip', 'link', 'del', 'dev', 'up0'])
  }

  /** Gives the node another uplink of the same name. */
  async makeUplink(address: string): Promise<void> {
    const [router, node] = ['router', 'node'].map((host) => `slicenet-${this.name}-${host}`)
    const gateway = address.replace(/\d+$/, '1')
    const batch = async (namespace: string | undefined, lines: readonly string[]): Promise<string> =>
      run('ip', ['-n', namespace ?? '', '-batch', '-'], { input: `${lines.join('\n')}\n` })
    await batch(router, [
      `link add name again type veth peer name up0 netns ${node}`,
      `addr add ${gateway}/24 dev again`,
      'link set again addrgenmode none up'
    ])
    await batch(node, [
      `addr add ${address}/24 dev up0`,
      'link set up0 addrgenmode none up',
      `route add default via ${gateway} dev up0`
    ])
  }

  /** Makes the second uplink, anew where it was taken away. */
  async makeSecond({ net, far }: SecondUplink): Promise<void> {
    const [world, node] = ['world', 'node'].map((host) => `slicenet-${this.name}-${host}`)
    const batch = async (namespace: string | undefined, lines: readonly string[]): Promise<string> =>
      run('ip', ['-n', namespace ?? '', '-batch', '-'], { input: `${lines.join('\n')}\n` })
    await batch(world, [
      `link add name up1 type veth peer name up1 netns ${node}`,
      `addr add ${net}.1/24 dev up1`,
      `addr replace ${far}/32 dev lo`,
      'link set up1 addrgenmode none up'
    ])
    await batch(node, [
      `addr add ${net}.2/24 dev up1`,
      'link set up1 addrgenmode none up',
      `route add default via ${net}.1 dev up1 metric 200`
    ])
  }

  async probeOnNode(): Promise<LineProgram> {
    return this.#probe(this.#hosts.enter('node'), 'up0')
  }

  /** Runs another program of this directory on a host, or where process `where` is, on a device. */
  async program(where: 'world' | 'node' | number, script: string, device: string): Promise<LineProgram> {
    return this.#probe(typeof where === 'number' ? insideOf(where) : this.#hosts.enter(where), device, script)
  }

  async #probe(enter: readonly string[], device: string, script = 'probe.py'): Promise<LineProgram> {
    const probe = new LineProgram([
      ...enter,
      '/usr/bin/python3',
      fileURLToPath(new URL(script, import.meta.url)),
      device,
      String(PATIENCE)
    ])
    this.#children.push(probe)
    await probe.answer()
    return probe
  }
}

/** The IPv6 address of a devnet's host, by its place among them. */
export const sixOf = (index: number): string => `2001:db8:${index + 1}::2`

/**
 * Gives the hosts of a devnet IPv6 beside IPv4; with link-local addresses, without which nobody asks for a neighbour to
 * forward to.
 */
export async function giveSix(name: string, hosts: readonly string[]): Promise<void> {
  const lines = (device: string, address: string, local: string): string =>
    [`${address}/64`, `${local}/64`].map((each) => `addr add ${each} dev ${device} nodad\n`).join('')
  const within = async (host: string, argv: readonly string[], input: string): Promise<string> =>
    run('nsenter', [`--net=/run/netns/slicenet-${name}-${host}`, ...argv], { input })
  const ip = ['ip', '-batch', '-']
  for (const [index, host] of hosts.entries()) {
    const gateway = sixOf(index).replace(/2$/, '1')
    const route = `route add ::/0 via ${gateway} dev up0\n`
    await within('router', ip, lines(`h${index}`, gateway, 'fe80::1'))
    await within(host, ip, lines('up0', sixOf(index), 'fe80::2') + route)
  }
  await within('router', ['tee', '/proc/sys/net/ipv6/conf/all/forwarding'], '1')
}

export function insideOf(pid: number): string[] {
  return ['nsenter', `--target=${pid}`, '--user', '--net', '--preserve-credentials']
}

export const tcp = (first: number, last = first): PortRange => ({ protocol: 'tcp', first, last })
export const udp = (first: number, last = first): PortRange => ({ protocol: 'udp', first, last })
export const icmp = (first: number, last = first): PortRange => ({ protocol: 'icmp', first, last })
export const gre = (first: number, last = first): PortRange => ({ protocol: 'gre', first, last })

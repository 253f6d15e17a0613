/** An overlay for killing nodes in: hosts as network namespaces, a real agent, one holder, and nodes with their lives. */
import { mkdir, open, rm, writeFile, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { systemClock } from '../../../src/base/clock.ts'
import { createDevnetNetwork, NAMESPACES_DIRECTORY } from '../../../src/daemon/devnet-network.ts'
import { createKey } from '../../../src/daemon/key-file.ts'
import { buildImage } from '../../../src/enforce/image-build.ts'
import { ImageStore } from '../../../src/enforce/image-store.ts'
import type { HolderInit } from './holder.ts'
import { JsonProcess } from './json-process.ts'
import { NodeLives } from './lives.ts'
import { ownHome, ownName } from '../own-names.ts'

const HOLDER = fileURLToPath(new URL('holder.ts', import.meta.url))
const DAEMON = fileURLToPath(new URL('node-daemon.ts', import.meta.url))
const PORT = 4001
/** Windows of user ids above those of devnets and of the enforcer's tests; six of them, so that two runs seldom meet. */
const UID_INDEX = 120 + (process.pid % 3) * 2

export interface HolderReply {
  readonly result?: {
    readonly ticket?: string
    readonly lease?: string
    readonly vserver?: string
    /** Of a ticket, UTC ms. */
    readonly notAfter?: number
    readonly refusal?: string
    readonly state?: string
  }
  /** The code. */
  readonly error?: string
  readonly message?: string
}

export class CrashOverlay {
  readonly name = ownName('k')
  home = ''
  readonly nodes: NodeLives[] = []
  readonly #hosts = createDevnetNetwork({ name: this.name, hosts: ['agent', 'holder', 'node1', 'node2'] })
  readonly #logs: FileHandle[] = []
  #agent: JsonProcess | undefined
  #holder: JsonProcess | undefined
  #orders = 0

  async up(): Promise<void> {
    this.home = await ownHome('k')
    const images = new ImageStore({ clock: systemClock }, { directory: join(this.home, 'images') })
    await images.start()
    const image = (await buildImage('busybox', { images })).id
    await this.#hosts.up()
    // A short hold: the agent asks what became of a ticket only after it, and has so many out at a time at most.
    const policy = { holders: 'anyone', longestTerm: '1d', hold: '1m' }
    const agent = await this.#prepare('agent', { agent: policy })
    const agentAddress = `/ip4/${this.#hosts.address('agent')}/tcp/${PORT}/p2p/${agent.principal}`
    for (const [index, name] of ['node1', 'node2'].entries()) {
      const shortName = `${this.name}-${name}`
      const node = await this.#prepare(name, {
        bootstrap: [agentAddress],
        node: {
          shortName,
          index: UID_INDEX + index,
          address: this.#hosts.address(name),
          uplink: { device: 'up0', rate: '100Mbps', own: '10Mbps' },
          volume: '2GiB',
          spares: 0,
          agents: [{ address: agentAddress, overbookPercent: 1000 }]
        }
      })
      const runDirectory = `/run/slicenet-${shortName}`
      const namespace = `${NAMESPACES_DIRECTORY}/slicenet-${shortName}`
      this.nodes.push(new NodeLives({ ...node, shortName, runDirectory, namespace }))
    }
    this.#agent = new JsonProcess([...this.#hosts.enter('agent'), process.execPath, DAEMON], {
      env: agent.env,
      stderr: agent.log.fd
    })
    await this.#agent.hear('ready')
    const peers = [
      { principal: agent.principal, multiaddr: agentAddress },
      ...this.nodes.map(({ init }, index) => ({
        principal: init.principal,
        multiaddr: `/ip4/${this.#hosts.address(`node${index + 1}`)}/tcp/${PORT}/p2p/${init.principal}`
      }))
    ]
    const init: HolderInit = { agent: agent.principal, image, peers }
    this.#holder = new JsonProcess(
      [...this.#hosts.enter('holder'), process.execPath, HOLDER, JSON.stringify(init)],
      { stderr: 'inherit' }
    )
    await this.#holder.hear('ready')
  }

  /** Has the holder do something; see `holder.ts`. */
  async ask(order: object): Promise<HolderReply> {
    const holder = this.#holder
    if (holder === undefined) throw new TypeError('there is no holder yet')
    const id = ++this.#orders
    const replied = Promise.withResolvers<HolderReply>()
    const unlisten = holder.listen((line) => {
      if (line.id === id) replied.resolve(line)
    })
    holder.say({ id, ...order })
    try {
      return await replied.promise
    } finally {
      unlisten()
    }
  }

  /** Idempotent. */
  async down(): Promise<void> {
    const nodes = this.nodes.splice(0)
    try {
      await Promise.all(nodes.map((node) => node.giveUp()))
    } finally {
      await this.#holder?.kill()
      await this.#agent?.kill()
      await this.#hosts.down()
      await Promise.all(this.#logs.splice(0).map((log) => log.close()))
      await rm(this.home, { recursive: true, force: true })
    }
  }

  /** A host's directory with key, configuration and log. */
  async #prepare(
    host: string,
    roles: object
  ): Promise<{ principal: string; state: string; env: Record<string, string>; log: FileHandle }> {
    const state = join(this.home, host)
    await mkdir(state)
    const { principal } = await createKey(join(state, 'identity.key'))
    const config = {
      name: host,
      listen: [`/ip4/${this.#hosts.address(host)}/tcp/${PORT}`],
      bootstrap: [],
      ...roles
    }
    await writeFile(join(state, 'slicenet.yaml'), JSON.stringify(config))
    const log = await open(join(state, 'daemon.log'), 'a', 0o600)
    this.#logs.push(log)
    const env = { SLICENET_HOME: state, SLICENET_IMAGES: join(this.home, 'images'), SLICENET_LOG: 'info' }
    return { principal, state, env, log }
  }
}

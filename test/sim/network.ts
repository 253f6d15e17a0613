/**
 * A simulated network: calls travel as two messages of the bytes that the real protocol engine writes, and each can be
 * dropped, delayed, brought twice or out of order; hosts can be cut off from each other.
 */
import { SlicenetError } from '../../src/base/errors.ts'
import { answerCall, callMethod } from '../../src/protocol/exchange.ts'
import type { Caller, Methods, Protocol } from '../../src/protocol/method.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import type { ByteDuplex } from '../../src/wire/duplex.ts'
import type { Host, Process } from './host.ts'
import { note, type World } from './world.ts'

/** Is told of every message as it leaves its sender. */
export interface Wiretap {
  request(from: Host, to: Host, bytes: Uint8Array): void
  reply(request: Uint8Array, bytes: Uint8Array): void
}

interface Link {
  sent: number
  /** The number of the latest-sent message that has arrived. */
  arrived: number
}

export class Network {
  readonly #world: World
  readonly #wiretap: Wiretap
  readonly #hosts = new Map<Principal, Host>()
  readonly #links = new Map<string, Link>()
  /** The part of the network that each host is in; empty while there is one only. */
  #parts = new Map<Host, number>()

  constructor(world: World, wiretap: Wiretap) {
    this.#world = world
    this.#wiretap = wiretap
  }

  add(host: Host): void {
    this.#hosts.set(host.key.principal, host)
  }

  /** Cuts the network in two, until it is made whole. */
  cut(): void {
    const { chance } = this.#world
    this.#parts = new Map([...this.#hosts.values()].map((host) => [host, chance.between(0, 1)]))
    const other = [...this.#parts].filter(([, part]) => part === 1).map(([{ name }]) => name)
    note(this.#world, 'network', `cut: ${other.join(' ')} apart`)
  }

  mend(): void {
    if (this.#parts.size === 0) return
    this.#parts.clear()
    note(this.#world, 'network', 'whole')
  }

  caller<M extends Methods>(from: Process, protocol: Protocol<M>, to: Principal): Caller<M> {
    return async (method, params, options = {}) => {
      const callee = this.#hosts.get(to)
      if (callee === undefined) throw new SlicenetError('PEER_UNREACHABLE', 'nobody has that key')
      const call = new Call(this, this.#world, from, callee, protocol.id, this.#wiretap)
      return callMethod(protocol, method, params, call.near, options)
    }
  }

  /** Sends a message that nobody answers: `arrive` runs at the other side if it arrives while that is up. */
  tell(from: Host, to: Host, arrive: (process: Process) => void): void {
    if (this.#world.faults.strikes('drop-request')) return
    this.carry(from, to, () => {
      if (to.process !== undefined) arrive(to.process)
    })
  }

  /** Takes a message from one host to another, unless they are cut off by the time that it is there. */
  carry(from: Host, to: Host, arrive: () => void, extraMs = 0): void {
    const { scheduler, chance, faults } = this.#world
    const link = this.#link(from, to)
    const number = ++link.sent
    let ms = chance.between(1, 30) + extraMs
    if (faults.strikes('delay'))
      ms += chance.happens(850) ? chance.between(500, 15_000) : chance.between(15_000, 120_000)
    scheduler.after(ms, () => {
      if (this.areApart(from, to)) return
      if (number < link.arrived) faults.count('reorder')
      link.arrived = Math.max(link.arrived, number)
      arrive()
    })
  }

  areApart(a: Host, b: Host): boolean {
    return this.#parts.get(a) !== this.#parts.get(b)
  }

  #link(from: Host, to: Host): Link {
    const key = `${from.name} ${to.name}`
    const known = this.#links.get(key)
    if (known !== undefined) return known
    const link = { sent: 0, arrived: 0 }
    this.#links.set(key, link)
    return link
  }
}

/** One call: the caller's end of its stream, and an end at the callee for each time that the request arrives. */
class Call {
  readonly near: ByteDuplex
  readonly #network: Network
  readonly #world: World
  readonly #from: Process
  readonly #to: Host
  readonly #protocolId: string
  readonly #wiretap: Wiretap
  readonly #reply = Promise.withResolvers<Uint8Array>()
  /** Told when the caller gives up. */
  readonly #abandoned = new AbortController()
  #isOver = false

  constructor(network: Network, world: World, from: Process, to: Host, protocolId: string, wiretap: Wiretap) {
    this.#network = network
    this.#world = world
    this.#from = from
    this.#to = to
    this.#protocolId = protocolId
    this.#wiretap = wiretap
    this.#reply.promise.catch(() => {})
    const written: Uint8Array[] = []
    this.near = {
      source: once(this.#reply.promise),
      write: async (bytes) => void written.push(bytes),
      closeWrite: async () => this.#send(Buffer.concat(written)),
      broken: new AbortController().signal,
      abort: (error) => {
        this.#fail(error)
        this.#abandoned.abort(new SlicenetError('PEER_UNREACHABLE', 'the caller gave up'))
      }
    }
  }

  #send(request: Uint8Array): void {
    const { faults, chance } = this.#world
    const { host } = this.#from
    host.isChanged = true
    this.#wiretap.request(host, this.#to, request)
    if (faults.strikes('drop-request')) return this.#lose()
    this.#network.carry(host, this.#to, () => this.#arrive(request))
    if (this.#network.areApart(host, this.#to)) this.#lose()
    if (!faults.strikes('duplicate')) return
    this.#network.carry(
      host,
      this.#to,
      () => this.#arrive(request),
      chance.between(0, 1) * chance.between(0, 60_000)
    )
  }

  /** Nothing comes any more; the caller learns of it, or waits until it has waited enough. */
  #lose(): void {
    const { chance } = this.#world
    if (chance.happens(500)) return
    this.#from.after(chance.between(10, 6000), () =>
      this.#fail(new SlicenetError('PEER_UNREACHABLE', `${this.#to.name} was lost`))
    )
  }

  #arrive(request: Uint8Array): void {
    const callee = this.#to.process
    const service = callee?.services.get(this.#protocolId)
    if (callee === undefined || service === undefined) return this.#lose()
    this.#to.isChanged = true
    const broken = new AbortController()
    const giveUp = (): void => broken.abort(new SlicenetError('PEER_UNREACHABLE', 'the caller gave up'))
    if (this.#abandoned.signal.aborted) giveUp()
    else this.#abandoned.signal.addEventListener('abort', () => callee.after(10, giveUp), { once: true })
    let isAnswered = false
    callee.onDeath(() => {
      if (!isAnswered) this.#lose()
    })
    const written: Uint8Array[] = []
    const far: ByteDuplex = {
      source: once(Promise.resolve(request)),
      write: async (bytes) => void written.push(bytes),
      closeWrite: async () => {
        isAnswered = true
        this.#answer(request, Buffer.concat(written))
      },
      broken: broken.signal,
      abort: () => this.#lose()
    }
    void answerCall(service.protocol, service.handlers, far, {
      principal: this.#from.host.key.principal,
      signal: new AbortController().signal,
      onInternalError: (method, error) =>
        this.#world.violated('no internal errors', `${method} at ${this.#to.name}: ${String(error)}`)
    })
  }

  #answer(request: Uint8Array, reply: Uint8Array): void {
    const { faults } = this.#world
    const { host } = this.#from
    this.#to.isChanged = true
    this.#wiretap.reply(request, reply)
    if (faults.strikes('drop-reply')) return this.#lose()
    this.#network.carry(this.#to, host, () => {
      if (this.#isOver || !this.#from.isAlive) return
      this.#isOver = true
      host.isChanged = true
      this.#reply.resolve(reply)
    })
    if (this.#network.areApart(host, this.#to)) this.#lose()
  }

  #fail(error: Error): void {
    if (this.#isOver || !this.#from.isAlive) return
    this.#isOver = true
    this.#reply.reject(error)
  }
}

async function* once(bytes: Promise<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield await bytes
}

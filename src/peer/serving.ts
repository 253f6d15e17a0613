/**
 * Answering calls: for each protocol served, streams from authenticated peers become calls of its handlers, bounded
 * per peer and in all, and ended when the peer stops.
 */
import type { Libp2p } from 'libp2p'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { answerCall } from '../protocol/exchange.ts'
import type { Handlers, Methods, Protocol } from '../protocol/method.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Refuse } from '../ticket/refusal.ts'
import type { ByteDuplex } from '../wire/duplex.ts'
import { streamDuplex } from './stream-duplex.ts'

/** How long the other side may take to close a stream whose call is over. */
const CLOSE_GRACE_MS = 5000
/** Handlers that do not heed their signal hold `stop` up for so long at most. */
const STOP_GRACE_MS = 2000

/** Streams beyond this are reset unanswered; up to `streamsPerPeerMax` they are answered, between them refused. */
export const STREAM_LIMITS = {
  maxInboundStreams: LIMITS.streamsPerPeerMax * 2,
  maxOutboundStreams: LIMITS.streamsPerPeerMax * 2
} as const

export interface ServingComponents {
  /** Told who calls. */
  readonly onCall?: (principal: Principal) => void
  readonly logger: Logger
  /** Signs refusals of the protocols that have them signed. */
  readonly refuse: Refuse
  /** Resolves when a caller may call, and throws `DENIED` when it may not; everybody may without it. */
  readonly admit?: (protocolId: string, principal: Principal) => Promise<void>
}

export class Serving {
  readonly #components: ServingComponents
  readonly #served = new Map<string, ServedProtocol>()
  #libp2p: Libp2p | undefined

  constructor(components: ServingComponents) {
    this.#components = components
  }

  /** Serves a protocol from now on, or from the start of the peer. Throws `TypeError` when it is served already. */
  async serve<M extends Methods>(protocol: Protocol<M>, handlers: Handlers<M>): Promise<void> {
    if (this.#served.has(protocol.id)) throw new TypeError(`${protocol.id} is served already`)
    const { logger, ...components } = this.#components
    const served = new ServedProtocol(
      { logger: logger.child(protocol.id), ...components },
      protocol,
      handlers as Handlers<Methods>
    )
    this.#served.set(protocol.id, served)
    if (this.#libp2p !== undefined) await this.#register(this.#libp2p, served)
  }

  async start(libp2p: Libp2p): Promise<void> {
    this.#libp2p = libp2p
    for (const served of this.#served.values()) {
      served.open()
      await this.#register(libp2p, served)
    }
  }

  /** Aborts what is being answered and waits for it. */
  async stop(): Promise<void> {
    this.#libp2p = undefined
    await Promise.all([...this.#served.values()].map(async (served) => served.close()))
  }

  /** The calls a peer makes to itself. */
  local(protocolId: string): ServedProtocol | undefined {
    return this.#served.get(protocolId)
  }

  async #register(libp2p: Libp2p, served: ServedProtocol): Promise<void> {
    const { id } = served.protocol
    await libp2p.handle(
      id,
      async (stream, connection) => {
        const principal = connection.remotePeer.toString()
        this.#components.onCall?.(principal)
        const duplex = streamDuplex(stream, `${id} with ${principal}`)
        await served.answer(duplex, principal)
        await duplex.settle(CLOSE_GRACE_MS)
      },
      // A peer behind a NAT holds and serves slices through relays.
      { ...STREAM_LIMITS, runOnLimitedConnection: true }
    )
  }
}

/** One protocol with its handlers and what is being answered now. */
class ServedProtocol {
  readonly protocol: Protocol<Methods>
  readonly #handlers: Handlers<Methods>
  readonly #components: ServingComponents
  #stopping = new AbortController()
  readonly #answering = new Set<Promise<void>>()
  readonly #streamsOf = new Map<Principal, number>()
  /** Under way now: calls that stream may last for hours, and must not keep the short ones out. */
  readonly #underWay = { streaming: 0, short: 0 }

  constructor(components: ServingComponents, protocol: Protocol<Methods>, handlers: Handlers<Methods>) {
    this.#components = components
    this.protocol = protocol
    this.#handlers = handlers
  }

  open(): void {
    this.#stopping = new AbortController()
  }

  async close(): Promise<void> {
    this.#stopping.abort(new SlicenetError('PEER_UNREACHABLE', 'the peer is stopping'))
    let timer: NodeJS.Timeout | undefined
    const grace = new Promise<void>((resolve) => (timer = setTimeout(resolve, STOP_GRACE_MS)))
    await Promise.race([Promise.all(this.#answering), grace])
    clearTimeout(timer)
  }

  async answer(duplex: ByteDuplex, principal: Principal): Promise<void> {
    const streams = (this.#streamsOf.get(principal) ?? 0) + 1
    this.#streamsOf.set(principal, streams)
    const silent = setTimeout(() => {
      duplex.abort(new Error('no request came'))
    }, LIMITS.requestWaitMsMax)
    const admit: Admit = async (method, work) => {
      clearTimeout(silent)
      await this.#components.admit?.(this.protocol.id, principal)
      return this.#admit(streams, method, work)
    }
    const { logger, refuse } = this.#components
    const answering = answerCall(this.protocol, admitted(this.#handlers, admit), duplex, {
      principal,
      ...(this.protocol.signsRefusals === true ? { refuse } : {}),
      signal: this.#stopping.signal,
      onInternalError: (method, error) => logger.error('a handler failed', { method, principal, error })
    })
    this.#answering.add(answering)
    try {
      await answering
    } finally {
      clearTimeout(silent)
      this.#answering.delete(answering)
      const left = (this.#streamsOf.get(principal) ?? 1) - 1
      if (left > 0) this.#streamsOf.set(principal, left)
      else this.#streamsOf.delete(principal)
    }
  }

  async #admit<T>(streams: number, method: string, work: () => Promise<T>): Promise<T> {
    if (streams > LIMITS.streamsPerPeerMax) {
      throw new SlicenetError(
        'BUSY',
        `more than ${LIMITS.streamsPerPeerMax} calls of ${this.protocol.id} at a time`
      )
    }
    const { item, input } = this.protocol.methods[method] ?? {}
    const kind = item === undefined && input === undefined ? 'short' : 'streaming'
    const most = kind === 'short' ? LIMITS.requestsAtOnceMax : LIMITS.streamingCallsAtOnceMax
    if (this.#underWay[kind] >= most) {
      throw new SlicenetError('BUSY', `${this.protocol.id}: busy with ${most} requests`)
    }
    this.#underWay[kind] += 1
    try {
      return await work()
    } finally {
      this.#underWay[kind] -= 1
    }
  }
}

type Admit = <T>(method: string, work: () => Promise<T>) => Promise<T>

/** The same handlers, each behind `admit`. */
function admitted(handlers: Handlers<Methods>, admit: Admit): Handlers<Methods> {
  return Object.fromEntries(
    Object.entries(handlers).map(([name, handler]): [string, Handlers<Methods>[string]] => [
      name,
      async (params, call) => admit(name, async () => handler(params, call))
    ])
  )
}

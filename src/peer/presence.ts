/**
 * Whether principals are still there: one whose connection ended, and a node of this agent that is overdue with its
 * news, is called. Who does not answer twice is gone here, well before the end of its advert. Nobody else is told: others
 * see for themselves.
 */
import type { Clock } from '../base/clock.ts'
import { repeat } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { directoryProtocol } from '../protocol/directory-protocol.ts'
import type { Principal } from '../ticket/principal.ts'
import { advertKey, type AdvertTable, type DirectoryEntry } from './advert-table.ts'
import type { DirectoryHost } from './overlay.ts'

const LOOK_MS = 1000
const OVERDUE_LOOK_MS = 5000
/** A peer that only lost a connection has so long to come back by itself. */
const FIRST_CALL_MS = 1000
const NEXT_CALL_MS = 4000
const CALL_MS_MAX = 10_000
const CALLS = 2

export interface PresenceComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly host: Pick<DirectoryHost, 'principal' | 'caller' | 'watchPeers'>
  readonly table: AdvertTable
}

/** Times are of the monotonic clock. */
interface Suspect {
  dueAt: number
  calls: number
  isCalled: boolean
  /** What it said last, by the time it came under suspicion. */
  readonly entries: readonly DirectoryEntry[]
}

export class Presence {
  readonly #components: PresenceComponents
  readonly #suspects = new Map<Principal, Suspect>()
  /** When an overdue principal was last found there. */
  readonly #heard = new Map<Principal, number>()
  #stopping = new AbortController()
  #unwatch: (() => void) | undefined
  #loop: { stop(): Promise<void> } | undefined
  #lookedAt = 0
  #calling = 0

  constructor(components: PresenceComponents) {
    this.#components = components
  }

  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { host, clock, logger } = this.#components
    this.#stopping = new AbortController()
    this.#unwatch = await host.watchPeers(directoryProtocol.id, {
      onMeet: (peer) => this.#suspects.delete(peer),
      onLeave: (peer) => this.#suspect(peer, FIRST_CALL_MS)
    })
    this.#loop = repeat(
      async () => this.#look(),
      { clock, onError: (error) => logger.error('the presence of peers was not looked at', { error }) },
      { intervalMs: LOOK_MS, initialDelayMs: LOOK_MS }
    )
  }

  async stop(): Promise<void> {
    this.#unwatch?.()
    this.#stopping.abort(new Error('stopped'))
    await this.#loop?.stop()
    this.#loop = undefined
    this.#suspects.clear()
    this.#heard.clear()
  }

  #suspect(peer: Principal, waitMs: number): void {
    const { table, clock } = this.#components
    if (this.#suspects.has(peer) || this.#suspects.size >= LIMITS.suspectsMax) return
    const entries = (['node', 'agent'] as const).flatMap((role) => table.get(advertKey(peer, role)) ?? [])
    if (entries.length === 0) return
    this.#suspects.set(peer, { dueAt: clock.monotonic() + waitMs, calls: 0, isCalled: false, entries })
  }

  // oxlint-disable-next-line typescript/require-await -- a task is asynchronous.
  async #look(): Promise<void> {
    const now = this.#components.clock.monotonic()
    if (now - this.#lookedAt >= OVERDUE_LOOK_MS) {
      this.#lookedAt = now
      for (const peer of this.#overdue(now)) this.#suspect(peer, 0)
    }
    for (const [peer, suspect] of this.#suspects) {
      if (this.#calling >= LIMITS.probesAtOnceMax) return
      if (!suspect.isCalled && suspect.dueAt <= now) void this.#call(peer, suspect)
    }
  }

  /** Nodes that say that they delegate to this agent, and said nothing for half the life of their advert. */
  #overdue(monotonic: number): Principal[] {
    const { table, clock, host } = this.#components
    const now = clock.now()
    const overdue: Principal[] = []
    for (const { advert, receivedAt } of table.entries()) {
      const { body } = advert
      if (body.role !== 'node' || !body.agents.includes(host.principal)) continue
      const patience = (body.notAfter - body.notBefore) / 2
      if (now - receivedAt < patience) this.#heard.delete(body.issuer)
      else if (monotonic - (this.#heard.get(body.issuer) ?? -Infinity) > patience) overdue.push(body.issuer)
    }
    return overdue
  }

  async #call(peer: Principal, suspect: Suspect): Promise<void> {
    const { clock, logger } = this.#components
    suspect.isCalled = true
    this.#calling += 1
    const answers = await this.#answers(peer)
    this.#calling -= 1
    suspect.isCalled = false
    if (this.#suspects.get(peer) !== suspect) return
    suspect.calls += 1
    suspect.dueAt = clock.monotonic() + NEXT_CALL_MS
    if (!answers && suspect.calls < CALLS) return
    this.#suspects.delete(peer)
    if (answers) this.#heard.set(peer, clock.monotonic())
    else {
      this.#heard.delete(peer)
      logger.info('a peer is there no more', { peer })
      this.#lose(suspect)
    }
  }

  async #answers(peer: Principal): Promise<boolean> {
    const { clock, host } = this.#components
    const call = host.caller(directoryProtocol, peer)
    try {
      await call(
        'about',
        {},
        { signal: AbortSignal.any([this.#stopping.signal, clock.timeout(CALL_MS_MAX)]) }
      )
      return true
    } catch {
      // Once this peer stops, nobody is at fault.
      return this.#stopping.signal.aborted
    }
  }

  #lose({ entries }: Suspect): void {
    for (const entry of entries) {
      const { issuer, role } = entry.advert.body
      this.#components.table.lose(advertKey(issuer, role), entry)
    }
  }
}

/**
 * The service manager (paper §2.2, §4.2.4): acquires a slice in two steps, tickets on every node and then leases,
 * launches its program, shows it, renews it, and gives it up; what it has begun survives a crash.
 */
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { together } from '../base/together.ts'
import type { Broker } from '../broker/broker.ts'
import type { Store } from '../store/store.ts'
import type { SigningKey } from '../ticket/principal.ts'
import { Acquisition } from './acquisition.ts'
import { Demands } from './demands.ts'
import { briefState, MemberCalls, type CallNode } from './member-calls.ts'
import { endOf, Renewal } from './renewal.ts'
import { SliceBook, type MemberRecord, type SliceRecord } from './slice-book.ts'
import type { SliceNews } from './slice-event.ts'
import { sliceView } from './slice-view.ts'
import { SliceWatches } from './slice-watch.ts'
import type { Progress, RenewalView, RenewedMember, SliceDescription, SliceView } from './slice.ts'

export interface ServiceManagerComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly broker: Broker
  readonly callNode: CallNode
  /** Shown the chains and leases that come in, as envelopes: they may contradict what others saw. */
  readonly observe: (envelopes: readonly Uint8Array[]) => void
  /** Envelopes: who vouches for the holder of the slices. */
  readonly memberships?: () => readonly Uint8Array[]
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
}

export interface ServiceManagerInit {
  /** How often what could not be given up or renewed yet is tried again, at most. */
  readonly retryMs: number
  /** How often the nodes of a slice that is watched are asked for the state of its members; default 10 s. */
  readonly memberPollMs?: number
}

export interface ProgressOptions {
  readonly onProgress?: (progress: Progress) => void | Promise<void>
  readonly signal?: AbortSignal
}

interface Work {
  /** Where the work may be broken off. */
  readonly interrupt: AbortController | undefined
  readonly ended: Promise<void>
}

interface Open {
  readonly book: SliceBook
  readonly acquisition: Acquisition
  readonly renewal: Renewal
  readonly watches: SliceWatches
}

const MEMBER_POLL_MS = 10_000

export class ServiceManager implements Startable {
  readonly #components: ServiceManagerComponents
  readonly #init: ServiceManagerInit
  readonly #demands: Demands
  readonly #calls: MemberCalls
  /** Slices that a call works on now. */
  readonly #busy = new Map<string, Work>()
  #open: Open | undefined
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: ServiceManagerComponents, init: ServiceManagerInit) {
    this.#components = components
    this.#init = init
    this.#demands = new Demands(components)
    this.#calls = new MemberCalls({ ...components, demands: this.#demands })
  }

  /** Reads what was begun and goes on with it in the background. */
  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { store, clock, logger } = this.#components
    const book = await SliceBook.open(store)
    const parts = { ...this.#components, book, calls: this.#calls, demands: this.#demands }
    const view = (name: string, { brief, signal }: { brief?: boolean; signal?: AbortSignal }) =>
      this.#view(this.#require(name), signal, brief)
    this.#open = {
      book,
      acquisition: new Acquisition(parts),
      renewal: new Renewal(parts, this.#init),
      watches: new SliceWatches(
        { book, view, clock, logger },
        { pollMs: this.#init.memberPollMs ?? MEMBER_POLL_MS }
      )
    }
    this.#loop = repeat(
      (signal) => this.#resume(signal),
      { clock, onError: (error) => logger.warn('resuming slices failed', { error }) },
      { intervalMs: this.#init.retryMs }
    )
  }

  async stop(): Promise<void> {
    const loop = this.#loop
    this.#loop = undefined
    await loop?.stop()
  }

  get #state(): Open {
    if (this.#open === undefined) throw new SlicenetError('BUSY', 'the service manager is not running')
    return this.#open
  }

  get #slices(): SliceBook {
    return this.#state.book
  }

  /**
   * Makes a slice; resolves when its program runs on every member. With fewer than the minimum nothing is kept.
   * Throws `NAME_TAKEN`, `NO_MATCH` with the failing clauses, `IMAGE_MISSING`, and what agents and nodes refused with.
   */
  async create(description: SliceDescription, options: ProgressOptions = {}): Promise<SliceView> {
    const { name } = description
    if (this.#slices.get(name) !== undefined || this.#busy.has(name)) {
      throw new SlicenetError('NAME_TAKEN', `you have a slice named ${name} already`, {
        hint: `choose another name, or run \`slicenet slice delete ${name}\``
      })
    }
    return this.#exclusively(name, async () => {
      const { acquisition } = this.#state
      try {
        const found = await acquisition.begin(description, options)
        await acquisition.complete(name, options, found)
      } catch (error) {
        if (this.#slices.get(name) !== undefined) await this.#giveUpAfter(name, error)
        throw error
      }
      return this.#view(this.#require(name), options.signal)
    })
  }

  /** With `brief` no node is asked: members that have not ended are `unknown`. */
  async list(
    options: { readonly brief?: boolean; readonly signal?: AbortSignal } = {}
  ): Promise<SliceView[]> {
    const { brief, signal } = options
    const views = await Promise.all(this.#slices.all().map((record) => this.#view(record, signal, brief)))
    return views.sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  /** What is known of each slice, as it is in the book. */
  records(): readonly SliceRecord[] {
    return this.#slices.all()
  }

  /** Throws `NOT_FOUND`. */
  async show(name: string, options: { readonly signal?: AbortSignal } = {}): Promise<SliceView> {
    return this.#view(this.#require(name), options.signal)
  }

  /** The slice as it is, and then what happens to it until its end. Throws `NOT_FOUND`, and the signal's reason. */
  watch(name: string, options: { readonly signal?: AbortSignal } = {}): AsyncIterable<SliceNews> {
    return this.#state.watches.watch(name, options)
  }

  /**
   * The leased members that `prefix` names by node name, node id, lease or vserver; all when it is absent.
   * Throws `NOT_FOUND`, and `AMBIGUOUS_ID` when several match and none exactly.
   */
  members(name: string, prefix?: string): MemberRecord[] {
    const leased = [...this.#require(name).members.values()].filter(({ state }) => state === 'leased')
    if (prefix === undefined) return leased
    const names = ({ nodeName, node, lease }: MemberRecord): string[] => [
      nodeName,
      node,
      lease?.id ?? '',
      lease?.body.vserver ?? ''
    ]
    const exact = leased.filter((member) => names(member).includes(prefix))
    if (exact.length === 1) return exact
    const matching = leased.filter((member) =>
      names(member).some((candidate) => candidate.startsWith(prefix))
    )
    if (matching.length === 0) throw new SlicenetError('NOT_FOUND', `slice ${name} has no member ${prefix}`)
    if (matching.length > 1) {
      throw new SlicenetError('AMBIGUOUS_ID', `${prefix} names ${matching.length} members of ${name}`)
    }
    return matching
  }

  /**
   * Renews the lease of each member to end `durationMs` from now, by default as long as the slice was made for. Gives
   * the actual end of each, renewed or not, and the earliest. Throws `NOT_FOUND`, and `BUSY` while the slice is being
   * made, renewed or deleted.
   */
  async renew(
    name: string,
    options: ProgressOptions & { readonly durationMs?: number } = {}
  ): Promise<RenewalView> {
    const { description, state } = this.#require(name)
    if (state === 'acquiring' || state === 'deleting') {
      throw new SlicenetError(
        'BUSY',
        `slice ${name} is ${state === 'deleting' ? 'being deleted' : 'not made yet'}`
      )
    }
    return this.#interruptibly(name, options.signal, async (signal) => {
      const began = this.#components.clock.monotonic()
      const durationMs = options.durationMs ?? description.leaseMs
      const leased = this.members(name)
      const members = await this.#renewMembers(this.#require(name), leased, durationMs, signal)
      if (members.length === 0) throw new SlicenetError('NOT_FOUND', `slice ${name} has no members to renew`)
      members.sort((a, b) => (a.nodeName < b.nodeName ? -1 : 1))
      const ms = Math.round(this.#components.clock.monotonic() - began)
      const count = members.filter(({ renewed }) => renewed).length
      await options.onProgress?.({
        step: 'renew',
        message: `${count} of ${members.length} leases renewed`,
        ms
      })
      return { slice: name, notAfter: Math.min(...members.map(({ notAfter }) => notAfter)), members }
    })
  }

  /**
   * Ends every lease of the slice, and first a renewal that is under way. Members whose node cannot be reached are tried
   * again in the background. Throws `NOT_FOUND`, and `BUSY` while the slice is being made or deleted.
   */
  async delete(
    name: string,
    options: ProgressOptions = {}
  ): Promise<{ deleted: number; unreachable: readonly string[] }> {
    this.#require(name)
    // A node that does not answer may hold a renewal up for minutes.
    const work = this.#busy.get(name)
    if (work?.interrupt !== undefined) {
      work.interrupt.abort(new SlicenetError('BUSY', `slice ${name} is being deleted`))
      await work.ended
    }
    return this.#exclusively(name, async () => {
      const began = this.#components.clock.monotonic()
      const before = this.#require(name).members.size
      const unreachable = await this.#giveUp(name)
      const deleted = before - unreachable.length
      const ms = Math.round(this.#components.clock.monotonic() - began)
      await options.onProgress?.({ step: 'delete', message: `${deleted} members deleted`, ms })
      return { deleted, unreachable }
    })
  }

  /** Gives a slice up that could not be made. What that fails with must not hide why; it is tried again later. */
  async #giveUpAfter(name: string, reason: unknown): Promise<void> {
    const { logger } = this.#components
    logger.warn('a slice could not be made and is given up', { slice: name, error: asSlicenetError(reason) })
    try {
      await this.#giveUp(name)
    } catch (error) {
      logger.error('a slice could not be given up yet', { slice: name, error })
    }
  }

  /** Drops every member; removes the slice when all are gone. Gives the nodes that could not be reached. */
  async #giveUp(name: string, signal?: AbortSignal): Promise<string[]> {
    const book = this.#slices
    await book.setState(name, 'deleting')
    const members = [...this.#require(name).members.values()]
    await book.putMembers(
      name,
      members.map((member) => ({ ...member, state: 'dropping' as const }))
    )
    const unreachable = await this.#dropAll(name, signal)
    if (unreachable.length === 0) await book.remove(name)
    return unreachable
  }

  async #dropAll(name: string, signal?: AbortSignal): Promise<string[]> {
    const { broker, clock, logger } = this.#components
    const dropping = [...this.#require(name).members.values()].filter(({ state }) => state === 'dropping')
    const unreachable: string[] = []
    const released: MemberRecord[] = []
    await together(
      dropping.map(async (member) => {
        try {
          // After its term a lease is over whatever its node says.
          if (endOf(member) > clock.now()) await this.#calls.drop(member, signal)
          await this.#slices.removeMember(name, member)
          released.push(
            member,
            ...(member.renewal === undefined
              ? []
              : [{ ...member, ...member.renewal, agent: member.renewal.ticket.body.issuer }])
          )
        } catch (error) {
          logger.warn('a member could not be given up yet', { slice: name, node: member.node, error })
          unreachable.push(member.node)
        }
      })
    )
    await broker.release(released)
    return unreachable
  }

  async #resume(signal: AbortSignal): Promise<void> {
    const open = this.#slices.all().filter((record) => {
      const { description, state, members } = record
      const isDropping = [...members.values()].some((member) => member.state === 'dropping')
      const isOpen = state === 'acquiring' || state === 'deleting' || isDropping
      return !this.#busy.has(description.name) && (isOpen || this.#state.renewal.due(record).length > 0)
    })
    await together(
      open.map(async ({ description: { name }, state }) => {
        if (state === 'active' || state === 'partial') await this.#tend(name, signal)
        else await this.#exclusively(name, async () => this.#resumeOne(name, state, signal))
      })
    )
  }

  async #renewMembers(
    record: SliceRecord,
    due: readonly MemberRecord[],
    durationMs: number,
    signal: AbortSignal
  ): Promise<RenewedMember[]> {
    const { renewal, watches } = this.#state
    const members = await renewal.renew(record, due, durationMs, signal)
    watches.renewed(record.description.name, members)
    return members
  }

  /** Drops and renews what is due of a slice that was made, until somebody deletes it. */
  async #tend(name: string, stopping: AbortSignal): Promise<void> {
    const work = async (signal: AbortSignal): Promise<void> => {
      await this.#dropAll(name, signal)
      signal.throwIfAborted()
      const record = this.#require(name)
      const due = this.#state.renewal.due(record)
      if (due.length > 0) await this.#renewMembers(record, due, record.description.leaseMs, signal)
    }
    try {
      await this.#interruptibly(name, stopping, work)
    } catch (error) {
      stopping.throwIfAborted()
      if (asSlicenetError(error).code !== 'BUSY') throw error
    }
  }

  async #resumeOne(name: string, state: SliceRecord['state'], signal: AbortSignal): Promise<void> {
    if (state === 'deleting') await this.#giveUp(name, signal)
    else {
      try {
        await this.#state.acquisition.complete(name, { signal })
      } catch (error) {
        signal.throwIfAborted()
        await this.#giveUpAfter(name, error)
      }
    }
  }

  async #exclusively<T>(name: string, work: () => Promise<T>, interrupt?: AbortController): Promise<T> {
    if (this.#busy.has(name)) throw new SlicenetError('BUSY', `slice ${name} is being worked on`)
    const { promise: ended, resolve } = Promise.withResolvers<void>()
    this.#busy.set(name, { interrupt, ended })
    try {
      return await work()
    } finally {
      this.#busy.delete(name)
      resolve()
    }
  }

  /** Exclusive work that a deletion breaks off. */
  async #interruptibly<T>(
    name: string,
    signal: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<T>
  ): Promise<T> {
    const interrupt = new AbortController()
    const either = signal === undefined ? interrupt.signal : AbortSignal.any([signal, interrupt.signal])
    return this.#exclusively(name, async () => work(either), interrupt)
  }

  #require(name: string): SliceRecord {
    const record = this.#slices.get(name)
    if (record === undefined) {
      throw new SlicenetError('NOT_FOUND', `you have no slice named ${name}`, {
        hint: 'run `slicenet slice list`'
      })
    }
    return record
  }

  async #view(record: SliceRecord, signal?: AbortSignal, brief = false): Promise<SliceView> {
    const now = this.#components.clock.now()
    return sliceView(record, async (member) =>
      brief ? briefState(member, now) : this.#calls.state(member, now, signal)
    )
  }
}

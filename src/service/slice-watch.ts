/**
 * Watching slices: whoever does hears what happens to one, as the difference between what it was told and what is. So a
 * slow listener gets fewer events and no queue grows for it. What is in the book is told at once; in which state the
 * virtual machines are, nodes are asked now and then, once for all who watch the slice.
 */
import type { Clock } from '../base/clock.ts'
import { repeat } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { SliceBook } from './slice-book.ts'
import { sliceChanges, type SliceEvent, type SliceNews } from './slice-event.ts'
import { stateOf } from './slice-view.ts'
import type { MemberState, RenewedMember, SliceView } from './slice.ts'

export interface SliceWatchesComponents {
  readonly book: Pick<SliceBook, 'get' | 'on'>
  /** A slice as it is; `brief`: without asking its nodes. Throws `NOT_FOUND`. */
  readonly view: (
    name: string,
    options: { readonly brief?: boolean; readonly signal?: AbortSignal }
  ) => Promise<SliceView>
  readonly clock: Clock
  readonly logger: Logger
}

export interface SliceWatchesInit {
  /** How often nodes are asked for the states of members, while somebody watches. */
  readonly pollMs: number
}

type Failure = Extract<SliceEvent, { readonly type: 'lease:fail' }>['reason']

/** Timers take no longer ones. */
const PAUSE_MS_MAX = 3_600_000

/** What the watchers of one slice share. */
interface Watched {
  /** By vserver. */
  readonly states: Map<string, MemberState>
  readonly watchers: Set<Watcher>
  readonly polling: { stop(): Promise<void> }
}

/** One who watches: woken when there may be something to tell. */
class Watcher {
  /** By node: the last failed renewal that was not told yet. */
  readonly failures = new Map<string, Failure>()
  #changed = Promise.withResolvers<void>()
  #isChanged = false

  wake(): void {
    this.#isChanged = true
    this.#changed.resolve()
  }

  /** Until woken, or so many milliseconds. Throws the signal's reason. */
  async pause(clock: Clock, ms: number, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted()
    if (!this.#isChanged) {
      const enough = new AbortController()
      const onAbort = (): void => this.#changed.resolve()
      signal?.addEventListener('abort', onAbort, { once: true })
      const slept = clock.sleep(ms, { signal: enough.signal }).catch(() => {})
      await Promise.race([this.#changed.promise, slept])
      enough.abort(new Error('woken'))
      signal?.removeEventListener('abort', onAbort)
    }
    signal?.throwIfAborted()
    this.#isChanged = false
    this.#changed = Promise.withResolvers()
  }
}

export class SliceWatches {
  readonly #components: SliceWatchesComponents
  readonly #init: SliceWatchesInit
  readonly #watched = new Map<string, Watched>()

  constructor(components: SliceWatchesComponents, init: SliceWatchesInit) {
    this.#components = components
    this.#init = init
  }

  /** The slice as it is, then what happens to it until its end. Throws `NOT_FOUND`, and the signal's reason. */
  async *watch(
    name: string,
    { signal }: { readonly signal?: AbortSignal } = {}
  ): AsyncGenerator<SliceNews, void, undefined> {
    const { clock, view } = this.#components
    const watcher = new Watcher()
    const off = this.#components.book.on('change', (changed) => {
      if (changed === name) watcher.wake()
    })
    const watched = this.#join(name, watcher)
    try {
      let seen = await view(name, signal === undefined ? {} : { signal })
      for (const { vserver, ...member } of seen.members) watched.states.set(vserver, stateOf(member))
      yield { slice: seen }
      for (;;) {
        if (isOver(seen)) return yield { type: 'end', reason: 'expired' }
        await watcher.pause(clock, untilEnd(seen, clock.now()), signal)
        if (this.#components.book.get(name) === undefined) return yield { type: 'end', reason: 'deleted' }
        const now = withStates(await view(name, { brief: true }), watched.states)
        const failed = takeFailures(watcher, now)
        for (const event of [...sliceChanges(seen, now), ...failed]) yield event
        seen = now
      }
    } finally {
      off()
      await this.#leave(name, watched, watcher)
    }
  }

  /** Tells those who watch of the leases that could not be renewed. */
  renewed(name: string, members: readonly RenewedMember[]): void {
    for (const watcher of this.#watched.get(name)?.watchers ?? []) {
      for (const { node, reason } of members) if (reason !== undefined) watcher.failures.set(node, reason)
      watcher.wake()
    }
  }

  #join(name: string, watcher: Watcher): Watched {
    const known = this.#watched.get(name)
    if (known !== undefined) {
      known.watchers.add(watcher)
      return known
    }
    const { clock, logger } = this.#components
    const { pollMs } = this.#init
    const watched: Watched = {
      states: new Map(),
      watchers: new Set([watcher]),
      polling: repeat(
        (signal) => this.#poll(name, signal),
        { clock, onError: (error) => logger.debug('members were not asked', { slice: name, error }) },
        { intervalMs: pollMs, initialDelayMs: pollMs }
      )
    }
    this.#watched.set(name, watched)
    return watched
  }

  async #leave(name: string, watched: Watched, watcher: Watcher): Promise<void> {
    watched.watchers.delete(watcher)
    if (watched.watchers.size > 0) return
    this.#watched.delete(name)
    await watched.polling.stop()
  }

  async #poll(name: string, signal: AbortSignal): Promise<void> {
    const watched = this.#watched.get(name)
    if (watched === undefined || this.#components.book.get(name) === undefined) return
    const { members } = await this.#components.view(name, { signal })
    watched.states.clear()
    for (const { vserver, ...member } of members) watched.states.set(vserver, stateOf(member))
    for (const watcher of watched.watchers) watcher.wake()
  }
}

/** A brief view with what nodes said last; that a lease is over needs no node to say so. */
function withStates(slice: SliceView, states: ReadonlyMap<string, MemberState>): SliceView {
  const members = slice.members.map((member) =>
    member.state === 'ended' ? member : { ...member, ...states.get(member.vserver) }
  )
  return { ...slice, members }
}

function takeFailures(watcher: Watcher, { members }: SliceView): SliceEvent[] {
  const events = members.flatMap((member) => {
    const reason = watcher.failures.get(member.node)
    return reason === undefined ? [] : [{ type: 'lease:fail' as const, member, reason }]
  })
  watcher.failures.clear()
  return events
}

/** Whether nothing of the slice is left but its name. */
function isOver({ state, members }: SliceView): boolean {
  const isMade = state === 'active' || state === 'partial'
  return isMade && members.length > 0 && members.every(({ state }) => state === 'ended')
}

/** Milliseconds until the next lease is over. */
function untilEnd({ members }: SliceView, now: number): number {
  const ends = members.filter(({ notAfter }) => notAfter > now).map(({ notAfter }) => notAfter - now)
  return Math.min(PAUSE_MS_MAX, ...ends)
}

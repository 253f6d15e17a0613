/** A slice in the hands of a program: what it is, what happens to it, and what can be done with it. */
import { SlicenetError } from '../base/errors.ts'
import type { ControlResult } from '../daemon/control-client.ts'
import type { MemberAct } from '../daemon/control-protocol.ts'
import { sliceChanges, withEvent, type SliceEvent } from '../service/slice-event.ts'
import type { MemberView, RenewalView, SliceView } from '../service/slice.ts'
import { QueueBuffer, streamed } from './call-stream.ts'
import type { CallSettings, ProgressSettings } from './client.ts'
import { execute, type ExecSettings, type Execution } from './execution.ts'
import { progressOptions, type Session } from './session.ts'
import { SliceListeners, type SliceEventMap } from './slice-listeners.ts'

/** A member, or how its node's name, node's id, lease or vserver begins. */
export type MemberName = string | Pick<MemberView, 'vserver'>

/** What a launched program printed. */
export interface LogEntry {
  readonly node: string
  readonly nodeName: string
  readonly stream: 'stdout' | 'stderr'
  /** UTC ms. */
  readonly time: number
  readonly bytes: Uint8Array
}

export type ActedMember = ControlResult<'sliceAct'>['members'][number]
export type CountedMember = ControlResult<'sliceCounters'>['members'][number]

export interface LogSettings extends CallSettings {
  /** Goes on until the programs end. */
  readonly follow?: boolean
  /** Default all. */
  readonly member?: MemberName
}

/**
 * The fields of a slice are those it had when it was made, refreshed, renewed or told of last. `await using` ends a slice
 * that `createSlice` gave, unless it was detached, and lets go of one that was there before.
 */
export interface SliceHandle extends Readonly<Omit<SliceView, 'renew' | 'notAfter'>>, AsyncDisposable {
  /** The earliest end among its leases, UTC ms; `undefined` when it has none. */
  readonly notAfter: number | undefined
  /** All fields as plain data. */
  readonly view: SliceView
  /** Asks for the slice as it is. Throws `NOT_FOUND`. */
  refresh(settings?: CallSettings): Promise<SliceView>
  /** Runs a program on a member; on the first when none is named. */
  exec(member: MemberName | undefined, argv: readonly string[], settings?: ExecSettings): Execution
  /** What the launched programs have printed, in no order between members. */
  logs(settings?: LogSettings): AsyncIterable<LogEntry>
  /**
   * Does something to the launched programs (`stop`, or a signal to be sent) or to all that runs (`freeze`, `thaw`), in one
   * member or all. Gives each member with the reason if it failed there. Throws `NOT_FOUND`.
   */
  act(act: MemberAct, settings?: CallSettings & { readonly member?: MemberName }): Promise<ActedMember[]>
  /**
   * What the nodes' checks dropped of what the members sent, packets by reason; with the reason in place of it where a node does
   * not say. Throws `NOT_FOUND`.
   */
  counters(settings?: CallSettings & { readonly member?: MemberName }): Promise<CountedMember[]>
  /** Renews its leases to end `durationMs` from now. Throws `NOT_FOUND`, `BUSY`. */
  renew(settings?: ProgressSettings & { readonly durationMs?: number }): Promise<RenewalView>
  /** Ends every lease. Gives how many members are gone, and the nodes that will be tried again. Throws `NOT_FOUND`, `BUSY`. */
  delete(settings?: ProgressSettings): Promise<ControlResult<'sliceDelete'>>
  /** What happens from now on, until the slice ends. Throws `DAEMON_UNREACHABLE`, and the signal's reason. */
  events(settings?: CallSettings): AsyncIterable<SliceEvent>
  /** Calls a listener with each event of a type, until the function given back is called or the slice is let go of. */
  on<K extends keyof SliceEventMap>(type: K, listener: (event: SliceEventMap[K]) => void): () => void
  /** Lets go of the slice: nothing is heard of it, and `await using` does not end it. */
  detach(): void
  /** As `view`. */
  toJSON(): SliceView
}

const EVENTS_MAX = 16
const LOG_CHUNKS_MAX = 16

/** `owned`: whether disposing ends the slice. */
export function sliceHandle(
  session: Session,
  view: SliceView,
  { owned }: { readonly owned: boolean }
): SliceHandle {
  return new HeldSlice(session, view, owned)
}

class HeldSlice implements SliceHandle {
  readonly #session: Session
  readonly #listeners = new SliceListeners((signal) => this.events({ signal }))
  #view: SliceView
  #isOwned: boolean

  constructor(session: Session, view: SliceView, isOwned: boolean) {
    this.#session = session
    this.#view = view
    this.#isOwned = isOwned
  }

  get view(): SliceView {
    return this.#view
  }

  get name(): string {
    return this.#view.name
  }

  get state(): SliceView['state'] {
    return this.#view.state
  }

  get count(): number {
    return this.#view.count
  }

  get createdAt(): number {
    return this.#view.createdAt
  }

  get notAfter(): number | undefined {
    return this.#view.notAfter
  }

  get members(): MemberView[] {
    return this.#view.members
  }

  toJSON(): SliceView {
    return this.#view
  }

  async refresh(settings?: CallSettings): Promise<SliceView> {
    this.#view = await this.#session.call('sliceShow', this.#named, settings)
    return this.#view
  }

  exec(member: MemberName | undefined, argv: readonly string[], settings: ExecSettings = {}): Execution {
    return execute(this.#session, { ...this.#named, ...memberOf(member) }, argv, settings)
  }

  logs({ follow = false, member, signal }: LogSettings = {}): AsyncIterable<LogEntry> {
    const params = { ...this.#named, ...memberOf(member), follow }
    return streamed({
      start: (options) => this.#session.call('sliceLogs', params, options),
      buffer: () => new QueueBuffer<LogEntry>(LOG_CHUNKS_MAX),
      signal
    })
  }

  async act(
    act: MemberAct,
    { member, ...settings }: CallSettings & { readonly member?: MemberName } = {}
  ): Promise<ActedMember[]> {
    const params = { ...this.#named, ...memberOf(member), act }
    return (await this.#session.call('sliceAct', params, settings)).members
  }

  async counters({ member, ...settings }: CallSettings & { readonly member?: MemberName } = {}): Promise<
    CountedMember[]
  > {
    const params = { ...this.#named, ...memberOf(member) }
    return (await this.#session.call('sliceCounters', params, settings)).members
  }

  async renew({
    durationMs,
    ...settings
  }: ProgressSettings & { readonly durationMs?: number } = {}): Promise<RenewalView> {
    const params = { ...this.#named, ...(durationMs === undefined ? {} : { durationMs }) }
    return this.#session.call('sliceRenew', params, progressOptions(settings))
  }

  async delete(settings?: ProgressSettings): Promise<ControlResult<'sliceDelete'>> {
    return this.#session.call('sliceDelete', this.#named, progressOptions(settings))
  }

  events({ signal }: CallSettings = {}): AsyncIterable<SliceEvent> {
    return streamed({
      start: ({ onItem, signal }) => this.#watch(onItem, signal),
      buffer: () => new QueueBuffer<SliceEvent>(EVENTS_MAX),
      signal
    })
  }

  on<K extends keyof SliceEventMap>(type: K, listener: (event: SliceEventMap[K]) => void): () => void {
    return this.#listeners.on(type, listener)
  }

  detach(): void {
    this.#isOwned = false
    this.#listeners.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOwned) return this.detach()
    try {
      await this.delete()
    } catch (error) {
      if (!isGone(error)) throw error
    }
    this.#isOwned = false
    this.#listeners.end({ type: 'end', reason: 'deleted' })
  }

  get #named(): { readonly slice: string } {
    return { slice: this.name }
  }

  /** What happened since the fields were as they are comes first, so that nothing is lost between two calls. */
  async #watch(onEvent: (event: SliceEvent) => Promise<void>, signal: AbortSignal): Promise<void> {
    const before = this.#view
    const tell = async (event: SliceEvent): Promise<void> => {
      if (!isStale(event, this.#view)) this.#view = withEvent(this.#view, event)
      await onEvent(event)
    }
    try {
      await this.#session.call('sliceWatch', this.#named, {
        signal,
        onItem: async (news) => {
          if (!('slice' in news)) return tell(news)
          // Another slice has its name.
          if (news.slice.createdAt !== this.createdAt) throw new SlicenetError('NOT_FOUND', 'it was deleted')
          for (const event of sliceChanges(before, news.slice)) await tell(event)
        }
      })
    } catch (error) {
      if (!isGone(error)) throw error
      await tell({ type: 'end', reason: 'deleted' })
    }
  }
}

/** Whether a later lease is known already: of several loops over the events of a slice one may be behind. */
function isStale(event: SliceEvent, { members }: SliceView): boolean {
  if (!('member' in event)) return false
  const { vserver, notAfter } = event.member
  return members.some((member) => member.vserver === vserver && member.notAfter > notAfter)
}

function isGone(error: unknown): boolean {
  return error instanceof SlicenetError && error.code === 'NOT_FOUND'
}

function memberOf(member: MemberName | undefined): { readonly member?: string } {
  if (member === undefined) return {}
  return { member: typeof member === 'string' ? member : member.vserver }
}

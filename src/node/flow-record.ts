/**
 * The record of flows: joins what the network saw of each vserver with who had it then, and writes it to a bounded,
 * hash-chained log, some seconds' worth at a time. It answers for this node's addresses: see `flow-search.ts`.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Flow } from '../enforce/network/flow.ts'
import type { FlowSource } from '../enforce/network/flow-watch.ts'
import { ChainedLog } from '../store/chained-log.ts'
import type { Store } from '../store/store.ts'
import type { LogRoot } from '../ticket/log-root.ts'
import type { SigningKey } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import {
  encodeEntries,
  endOf,
  type FlowEntry,
  type LogEntry,
  type Tenure,
  type Unwatched
} from './flow-entries.ts'
import { FlowRoots, type LogVerdict } from './flow-roots.ts'
import { readTenures, readUnwatched } from './flow-search.ts'
import type { LeaseRecord, LeaseState } from './lease-table.ts'

export interface FlowRecordComponents {
  readonly flows: FlowSource
  readonly manager: {
    readonly table: { all(): readonly Pick<LeaseRecord, 'lease' | 'state'>[] }
    onChange(listener: () => void): () => void
  }
  readonly key: SigningKey
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
}

export interface FlowRecordInit {
  /** Of this node alone. */
  readonly directory: string
  /** Of the log on the disk. */
  readonly bytesMax: number
  /** Default `LIMITS.flowFileBytesMax`. */
  readonly fileBytesMax?: number
  /** Entries that wait for the disk. Default four times `LIMITS.openFlowsMax`. */
  readonly pendingMax?: number
}

const WRITE_INTERVAL_MS = 5000
const SNAPSHOT_INTERVAL_MS = 60_000
const SIGN_INTERVAL_MS = 3_600_000
/** Packets of a vserver may be told of after its end. */
const REMEMBERED_MS = 10 * 60_000
/** Nobody is told of a shorter time in which nobody watched. */
const UNWATCHED_MS_MIN = 1000
const UNWATCHED_TOLD_MAX = 100
const PENDING_MAX = 4 * LIMITS.openFlowsMax

export class FlowRecord implements Startable {
  readonly #c: FlowRecordComponents
  readonly #init: FlowRecordInit
  /** By lease; those that ended lately as well. */
  #tenures = new Map<string, Tenure>()
  #pending: LogEntry[] = []
  #log: ChainedLog | undefined
  #roots: FlowRoots | undefined
  #loop: { stop(): Promise<void> } | undefined
  #unsubscribe = (): void => {}
  #lastSnapshot = 0
  /** When something was written last; UTC ms. */
  #writtenAt = 0
  /** By the monotonic clock: what the last root says of its time may be of a clock that was wrong. */
  #signDue = 0
  #losses = ''
  /** Entries that found no room while the disk took none. */
  #dropped = 0
  /** Changes and looks at the log come one after the other. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(components: FlowRecordComponents, init: FlowRecordInit) {
    this.#c = components
    this.#init = init
  }

  /** Throws `STORE_FAILED`. The node manager must have started. */
  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { clock, logger, store, key, manager } = this.#c
    this.#roots = await FlowRoots.open(store, key)
    const log = await this.#openLog()
    const now = clock.now()
    const writtenAt = await this.#readTenures(log, now - REMEMBERED_MS)
    if (writtenAt !== undefined && Math.abs(now - writtenAt) >= UNWATCHED_MS_MIN) {
      // The clock may have been set back meanwhile.
      const times = { from: Math.min(writtenAt, now), to: Math.max(writtenAt, now) }
      this.#pending.push({ kind: 'unwatched', ...times })
    }
    this.#unsubscribe = manager.onChange(() => this.#noteTenures())
    this.#lastSnapshot = clock.monotonic()
    const untilDue = (this.root()?.body.notAfter ?? 0) + SIGN_INTERVAL_MS - now
    this.#signDue = clock.monotonic() + Math.min(Math.max(untilDue, 0), SIGN_INTERVAL_MS)
    this.#noteTenures()
    await this.write({ all: false })
    this.#loop = repeat(
      () => this.#turn(),
      { clock, onError: (error) => logger.error('flows are not recorded', { error }) },
      { intervalMs: WRITE_INTERVAL_MS, initialDelayMs: WRITE_INTERVAL_MS }
    )
  }

  /** Writes what there is, and signs it. */
  async stop(): Promise<void> {
    // A beginning that failed may have opened the log.
    this.#unsubscribe()
    if (this.#loop === undefined && this.#log === undefined) return
    await this.#loop?.stop()
    this.#loop = undefined
    try {
      await this.write({ all: true })
      if (this.#c.clock.now() - this.#writtenAt >= UNWATCHED_MS_MIN) await this.#noteWatched()
      await this.sign()
    } finally {
      await this.#last
      await this.#log?.close()
      this.#log = undefined
    }
  }

  /** Writes all that was seen until now; with `all` also of flows that go on. Durable when it resolves. */
  async write({ all }: { readonly all: boolean }): Promise<void> {
    const flows = await this.#c.flows.take({ all })
    this.#noteTenures()
    this.#noteLosses()
    this.#note(...flows.map((flow) => this.#entryOf(flow)))
    await this.#inOrder(() => this.#flush())
  }

  /** Signs how far the log goes now; nothing where the last root says so already. */
  async sign(): Promise<void> {
    await this.#inOrder(() => this.#sign())
  }

  /** The last signed root: to be kept where nobody of this machine can change it. */
  root(): Signed<LogRoot> | undefined {
    return this.#roots?.last()
  }

  async verify(
    others: readonly Signed<LogRoot>[] = []
  ): Promise<LogVerdict & { readonly unwatched: readonly Unwatched[] }> {
    return this.#inOrder(async () => {
      const { roots, log } = this.#needed()
      const verdict = await roots.verify(log, others)
      return { ...verdict, unwatched: await readUnwatched(this, UNWATCHED_TOLD_MAX) }
    })
  }

  /** The log's pieces, from those on that were written about `since` (UTC ms). */
  pieces(since: number): ReturnType<ChainedLog['read']> {
    return this.#needed().log.read(since)
  }

  async #turn(): Promise<void> {
    const { clock } = this.#c
    const isDue = clock.monotonic() - this.#lastSnapshot >= SNAPSHOT_INTERVAL_MS
    if (isDue) this.#lastSnapshot = clock.monotonic()
    await this.write({ all: isDue })
    if (clock.now() - this.#writtenAt >= SNAPSHOT_INTERVAL_MS) await this.#noteWatched()
    if (clock.monotonic() >= this.#signDue) await this.sign()
  }

  /** A later beginning tells by the last piece since when nobody has watched. */
  async #noteWatched(): Promise<void> {
    this.#note({ kind: 'watched', time: this.#c.clock.now() })
    await this.#inOrder(() => this.#flush())
  }

  /** Gives when the log was last written to, UTC ms. */
  async #readTenures(log: ChainedLog, since: number): Promise<number | undefined> {
    let writtenAt: number | undefined
    async function* pieces(from: number): ReturnType<ChainedLog['read']> {
      for await (const records of log.read(from)) {
        writtenAt = records.at(-1)?.writtenAt ?? writtenAt
        yield records
      }
    }
    this.#tenures = await readTenures({ pieces }, since)
    return writtenAt
  }

  #noteTenures(): void {
    const now = this.#c.clock.now()
    const having = new Set<string>()
    for (const { lease, state } of this.#c.manager.table.all()) {
      if (!hasVserver(state)) continue
      having.add(lease.id)
      if (this.#tenures.has(lease.id)) continue
      const { slice, holder, vserver, ports, notBefore, notAfter } = lease.body
      const places = ports.map(({ protocol, first, last }) => ({ protocol, first, last }))
      const times = { from: Math.min(notBefore, now), notAfter }
      this.#setTenure({
        kind: 'tenure',
        lease: lease.id,
        slice,
        principal: holder,
        vserver,
        ports: places,
        ...times
      })
    }
    for (const [lease, tenure] of this.#tenures) {
      // Of one that is over the table may know nothing any more.
      if (tenure.until === undefined && !having.has(lease)) {
        this.#setTenure({ ...tenure, until: Math.min(now, tenure.notAfter) })
      } else if (tenure.until !== undefined && tenure.until < now - REMEMBERED_MS) {
        this.#tenures.delete(lease)
      }
    }
  }

  #setTenure(tenure: Tenure): void {
    this.#tenures.set(tenure.lease, tenure)
    // These are few, and are not told again.
    this.#pending.push(tenure)
  }

  #noteLosses(): void {
    const { skipped, ...others } = this.#c.flows.losses()
    const losses = { ...others, skipped: skipped + this.#dropped }
    const said = JSON.stringify(losses)
    if (said === this.#losses || Object.values(losses).every((count) => count === 0)) return
    if (this.#note({ kind: 'gap', time: this.#c.clock.now(), ...losses })) this.#losses = said
  }

  /** Whether there was room for all. */
  #note(...entries: readonly LogEntry[]): boolean {
    // The disk may take nothing for a while.
    const room = Math.max(0, (this.#init.pendingMax ?? PENDING_MAX) - this.#pending.length)
    for (const entry of entries.slice(0, room)) this.#pending.push(entry)
    // A gap is told later.
    this.#dropped += entries.slice(room).filter(({ kind }) => kind !== 'gap').length
    return entries.length <= room
  }

  #entryOf(flow: Flow): FlowEntry {
    const { id, vserver, sent, received, ...rest } = flow
    const tenure = this.#tenureOf(vserver, flow.last)
    const whose = tenure && { lease: tenure.lease, slice: tenure.slice, principal: tenure.principal }
    return {
      kind: 'flow',
      flow: id,
      vserver,
      ...whose,
      ...rest,
      sentPackets: sent.packets,
      sentBytes: sent.bytes,
      receivedPackets: received.packets,
      receivedBytes: received.bytes
    }
  }

  /** A renewal has the virtual machine from when it was made, though its term begins where the one before ends. */
  #tenureOf(vserver: string, time: number): Tenure | undefined {
    const of = [...this.#tenures.values()].filter((tenure) => tenure.vserver === vserver)
    return of.find((tenure) => time <= endOf(tenure)) ?? of.at(-1)
  }

  async #flush(): Promise<void> {
    const log = this.#log ?? (await this.#openLog())
    while (this.#pending.length > 0) {
      const isAlone = this.#pending[0]?.kind === 'unwatched'
      const entries = this.#pending.slice(0, isAlone ? 1 : LIMITS.flowsPerRecordMax)
      try {
        const { isNewSegment } = await log.append([await encodeEntries(entries)])
        this.#pending.splice(0, entries.length)
        this.#writtenAt = this.#c.clock.now()
        // Whoever reads one file knows who had what when it began.
        const written = new Set(entries)
        if (isNewSegment)
          this.#pending.unshift(...this.#tenures.values().filter((each) => !written.has(each)))
      } catch (error) {
        this.#log = undefined
        await log.close().catch(() => {})
        throw error
      }
    }
    const begin = await log.excess()
    if (begin === undefined) return
    // Signed before anything goes, so that what is missing otherwise was taken away.
    await this.#needed().roots.sign({ ...log.extent(), begin }, this.#c.clock.now())
    await log.dropBefore(begin)
  }

  async #sign(): Promise<void> {
    const { log, roots } = this.#needed()
    const { head } = log.extent()
    if (roots.last()?.body.head.sequence === head.sequence) return
    await roots.sign(log.extent(), this.#c.clock.now())
    this.#signDue = this.#c.clock.monotonic() + SIGN_INTERVAL_MS
  }

  async #openLog(): Promise<ChainedLog> {
    const { clock, logger } = this.#c
    const { directory, bytesMax, fileBytesMax } = this.#init
    this.#log = await ChainedLog.open(
      { clock, logger },
      { directory, name: 'flows', bytesMax, segmentBytesMax: fileBytesMax ?? LIMITS.flowFileBytesMax }
    )
    return this.#log
  }

  #needed(): { readonly log: ChainedLog; readonly roots: FlowRoots } {
    if (this.#log === undefined || this.#roots === undefined)
      throw new TypeError('the record of flows is not open')
    return { log: this.#log, roots: this.#roots }
  }

  async #inOrder<T>(task: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(task, task)
    this.#last = mine.catch(() => {})
    return mine
  }
}

/** One that is being made may come to nothing, and has no holder yet. */
function hasVserver(state: LeaseState): boolean {
  return state === 'active' || state === 'ending'
}

/** Reads the record of flows: all of a time, and whose packets somebody complains of. */
import { SlicenetError } from '../base/errors.ts'
import {
  decodeEntries,
  endOf,
  type FlowEntry,
  type LogEntry,
  type Tenure,
  type Unwatched
} from './flow-entries.ts'

export type { FlowEntry }
import type { PortProtocol } from '../ticket/ports.ts'

/** The log as it is read. */
export interface FlowPieces {
  pieces(
    since: number
  ): AsyncIterable<readonly { readonly writtenAt: number; readonly payload: Uint8Array }[]>
}

export interface Complaint {
  /** UTC ms, and how far either side's clock may be off. */
  readonly time: number
  readonly withinMs: number
  /** Of whoever complains, or the node's own. */
  readonly address: string
  /** Either end's; of ICMP the identifier, of GRE the key. */
  readonly port: number
  readonly protocol?: PortProtocol
}

export interface Answer {
  /** The latest that is known of each, the best match first. */
  readonly flows: readonly FlowEntry[]
  /** Who had the port then, whether or not they used it. */
  readonly owners: readonly Tenure[]
  /** When nobody watched, about that time. */
  readonly unwatched: readonly Unwatched[]
}

/** Flows that last are noted each minute, or when the daemon runs again. */
const NOTED_WITHIN_MS = 75_000
const FLOWS_ANSWERED_MAX = 1000

/**
 * Every flow that had packets in [since, until), one entry each time it was noted, and when nobody watched, in the order of
 * the notes.
 */
export async function* readFlows(
  log: FlowPieces,
  { since, until }: { readonly since: number; readonly until: number }
): AsyncIterable<FlowEntry | Unwatched> {
  for await (const { entries } of entriesFrom(log, since)) {
    for (const entry of entries) {
      if (entry.kind === 'flow' && entry.last >= since && entry.first < until) yield entry
      if (entry.kind === 'unwatched' && entry.to >= since && entry.from < until) yield entry
    }
  }
}

/** What says that nobody watched is a piece by itself, so that it is found without unpacking all others. */
const UNWATCHED_BYTES_MAX = 128

/** When nobody watched, of all that is kept, the latest `max` in order. */
export async function readUnwatched(log: FlowPieces, max: number): Promise<Unwatched[]> {
  const found: Unwatched[] = []
  for await (const records of log.pieces(0)) {
    for (const { writtenAt, payload } of records) {
      if (payload.length > UNWATCHED_BYTES_MAX) continue
      for (const entry of await entriesOf(payload, writtenAt))
        if (entry.kind === 'unwatched') found.push(entry)
    }
  }
  return found.slice(-max)
}

/** The last that is noted of each lease, by lease, in the files that were written to since then. */
export async function readTenures(log: FlowPieces, since: number): Promise<Map<string, Tenure>> {
  const tenures = new Map<string, Tenure>()
  for await (const { entries } of entriesFrom(log, since)) {
    for (const entry of entries) if (entry.kind === 'tenure') tenures.set(entry.lease, entry)
  }
  return tenures
}

/** Answers a complaint. */
export async function findCulprit(log: FlowPieces, complaint: Complaint): Promise<Answer> {
  const { time, withinMs } = complaint
  const flows = new Map<string, FlowEntry>()
  const tenures = new Map<string, Tenure>()
  const unwatched: Unwatched[] = []
  let readUntil = Infinity
  for await (const { writtenAt, entries } of entriesFrom(log, time - withinMs)) {
    if (writtenAt > readUntil) break
    // The first that was written after it tells that somebody was there to write.
    if (readUntil === Infinity && writtenAt > time + withinMs) readUntil = writtenAt + NOTED_WITHIN_MS
    for (const entry of entries) {
      if (entry.kind === 'tenure') tenures.set(entry.lease, entry)
      else if (entry.kind === 'unwatched') {
        if (entry.to >= time - withinMs && entry.from <= time + withinMs) unwatched.push(entry)
      } else if (entry.kind === 'flow' && isMeant(entry, complaint)) flows.set(keyOf(entry, flows), entry)
    }
  }
  const owners = [...tenures.values()].filter(
    (tenure) => tenure.from <= time + withinMs && endOf(tenure) >= time - withinMs && owns(tenure, complaint)
  )
  const distance = ({ first, last }: FlowEntry): number => Math.max(first - time, time - last, 0)
  const found = [...flows.values()].sort((a, b) => distance(a) - distance(b) || b.last - a.last)
  return { flows: found.slice(0, FLOWS_ANSWERED_MAX), owners, unwatched }
}

async function* entriesFrom(
  log: FlowPieces,
  since: number
): AsyncIterable<{ readonly writtenAt: number; readonly entries: readonly LogEntry[] }> {
  for await (const records of log.pieces(since)) {
    for (const { writtenAt, payload } of records)
      yield { writtenAt, entries: await entriesOf(payload, writtenAt) }
  }
}

/** One piece that cannot be read is a gap; the others can be. */
async function entriesOf(payload: Uint8Array, time: number): Promise<readonly LogEntry[]> {
  try {
    return await decodeEntries(payload)
  } catch (error) {
    if (!(error instanceof SlicenetError) || error.code !== 'ENCODING_INVALID') throw error
    return [{ kind: 'gap', time, overruns: 0, skipped: 0, unreadable: 1 }]
  }
}

function isMeant(entry: FlowEntry, { time, withinMs, address, port, protocol }: Complaint): boolean {
  if (protocol !== undefined && entry.protocol !== protocol) return false
  if (entry.first > time + withinMs || entry.last < time - withinMs) return false
  // Of GRE, and of ICMP outside of connections, numbers are not noted.
  const isBare = entry.protocol === 'gre' || (entry.protocol === 'icmp' && !entry.isTracked)
  if (isBare) return entry.localAddress === address || entry.remoteAddress === address
  if (entry.localAddress === address) return entry.localPort === port
  return entry.remoteAddress === address && (entry.localPort === port || entry.remotePort === port)
}

function owns({ ports }: Tenure, { port, protocol }: Complaint): boolean {
  return ports.some(
    (range) =>
      (protocol === undefined || range.protocol === protocol) && range.first <= port && port <= range.last
  )
}

/** How far apart two daemons may take the beginning of one flow to be: the kernel keeps it to the second. */
const SAME_BEGINNING_MS = 3000

function keyOf(entry: FlowEntry, known: ReadonlyMap<string, FlowEntry>): string {
  const key = [
    entry.flow,
    entry.vserver,
    entry.protocol,
    entry.localPort,
    entry.remoteAddress,
    entry.remotePort
  ].join(' ')
  for (let number = 0; ; number++) {
    const before = known.get(`${key} ${number}`)
    if (before === undefined || Math.abs(before.first - entry.first) <= SAME_BEGINNING_MS)
      return `${key} ${number}`
  }
}

/** What an agent keeps in the store, and how it is read back. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import type { Entry, Store } from '../store/store.ts'
import { delegationObject } from '../ticket/delegation.ts'
import { principalSchema, type Principal } from '../ticket/principal.ts'
import type { Score } from '../ticket/reliability.ts'
import { amountSchema, timeSchema } from '../ticket/signed-object.ts'
import { ticketObject } from '../ticket/ticket.ts'
import { byteString, cborCodec } from '../wire/codec.ts'
import type { Issued } from './node-account.ts'
import { chainBytes, delegationSource, wholesaleSource, type Source } from './source.ts'
import type { TicketBook } from './ticket-book.ts'

const SOURCES = 'agent-sources'
const TICKETS = 'agent-tickets'
const STATE = 'agent-state'
const REVOCATIONS = 'agent-revocations'
const RATINGS = 'agent-ratings'
const BOOK = 'book'

const bytes = byteString(1, LIMITS.objectBytesMax)
const chain = v.pipe(v.array(bytes), v.minLength(1), v.maxLength(LIMITS.chainLinksMax + 1))
const limits = { bytesMax: LIMITS.messageBytesMax, depthMax: 4 }

const sourceCodec = cborCodec(v.strictObject({ chain, forgottenUntil: timeSchema }), limits)
const ticketCodec = cborCodec(
  v.strictObject({
    ticket: bytes,
    settled: v.boolean(),
    revoked: v.boolean(),
    rated: v.boolean(),
    organisation: v.exactOptional(principalSchema)
  }),
  limits
)
const stateCodec = cborCodec(v.strictObject({ seq: amountSchema, horizon: timeSchema }))
const revocationCodec = cborCodec(
  v.strictObject({ revocation: bytes, node: principalSchema, until: timeSchema, chain }),
  limits
)
const scoreCodec = cborCodec(v.strictObject({ kept: amountSchema, broken: amountSchema, since: timeSchema }))

/** A revocation that its node does not have yet. */
export interface KeptRevocation {
  readonly revocation: Uint8Array
  readonly node: Principal
  /** UTC ms after which it is of no use. */
  readonly until: number
  /** Envelopes, the node's delegation first. */
  readonly chain: Uint8Array[]
}

export interface KeptAgent {
  readonly seq: number
  /** By the id of the ticket. */
  readonly revocations: ReadonlyMap<string, KeptRevocation>
  readonly ratings: readonly (readonly [subject: string, score: Score])[]
}

/** Reads everything back, the book's part into `book`. */
export async function readAgent(store: Store, book: TicketBook): Promise<KeptAgent> {
  const sources: { source: Source; forgottenUntil: number }[] = []
  for await (const [, value] of store.iterate(SOURCES)) {
    const kept = sourceCodec.decode(value)
    sources.push({ source: openSource(kept.chain), forgottenUntil: kept.forgottenUntil })
  }
  const tickets: (Pick<Issued, 'ticket'> & Partial<Issued>)[] = []
  for await (const [, value] of store.iterate(TICKETS)) {
    const { ticket, ...state } = ticketCodec.decode(value)
    tickets.push({ ...state, ticket: ticketObject.open(ticket) })
  }
  const value = await store.get(STATE, BOOK)
  const { seq, horizon } = value === undefined ? { seq: 0, horizon: 0 } : stateCodec.decode(value)
  book.restore({ horizon, sources, tickets })
  const revocations = new Map<string, KeptRevocation>()
  for await (const [id, kept] of store.iterate(REVOCATIONS)) revocations.set(id, revocationCodec.decode(kept))
  const ratings: [string, Score][] = []
  for await (const [subject, score] of store.iterate(RATINGS))
    ratings.push([subject, scoreCodec.decode(score)])
  return { seq, revocations, ratings }
}

function openSource([root, ...links]: readonly Uint8Array[]): Source {
  if (root === undefined) throw new TypeError('a chain begins with a delegation')
  const delegation = delegationObject.open(root)
  const tickets = links.map((link) => ticketObject.open(link))
  return tickets.length === 0 ? delegationSource(delegation) : wholesaleSource(delegation, tickets)
}

export function sourceEntry(source: Source, forgottenUntil: number): Entry {
  const value = sourceCodec.encode({ chain: chainBytes(source), forgottenUntil })
  return { table: SOURCES, key: source.parent.id, value }
}

export function ticketEntry({ ticket, settled, revoked, rated, organisation }: Issued): Entry {
  const of = organisation === undefined ? {} : { organisation }
  const value = ticketCodec.encode({ ticket: ticket.bytes, settled, revoked, rated, ...of })
  return { table: TICKETS, key: ticket.id, value }
}

/** The last sequence number used, and what the book has forgotten: both before what rests on them. */
export function stateEntry(state: { readonly seq: number; readonly horizon: number }): Entry {
  return { table: STATE, key: BOOK, value: stateCodec.encode(state) }
}

export function droppedEntries(dropped: {
  readonly tickets: readonly Issued[]
  readonly sources: readonly string[]
}): Entry[] {
  return [
    ...dropped.tickets.map(({ ticket }) => ({ table: TICKETS, key: ticket.id, value: null })),
    ...dropped.sources.map((key) => ({ table: SOURCES, key, value: null }))
  ]
}

export function revocationEntry(ticket: string, kept: KeptRevocation | null): Entry {
  return { table: REVOCATIONS, key: ticket, value: kept === null ? null : revocationCodec.encode(kept) }
}

export function ratingEntry(subject: string, score: Score | null): Entry {
  return { table: RATINGS, key: subject, value: score === null ? null : scoreCodec.encode(score) }
}

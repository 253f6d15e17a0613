/**
 * Histories of a ticket book: what nodes, holders, other agents and clocks may do to it, in any order, and everything
 * that left the house. The objects are not signed: the rules look at what they say.
 */
import fc from 'fast-check'
import { CLOCK_SKEW_MS } from '../../src/agent/decision.ts'
import type { Issued } from '../../src/agent/node-account.ts'
import { DELEGATIONS_GROUP, delegationSource, wholesaleSource, type Source } from '../../src/agent/source.ts'
import { TicketBook } from '../../src/agent/ticket-book.ts'
import type { PortWish, TicketRequest } from '../../src/protocol/agent-protocol.ts'
import type { Delegation } from '../../src/ticket/delegation.ts'
import { equivocation, overIssued, type Finding, type Parent } from '../../src/ticket/fraud.ts'
import { NO_RESOURCES, type Resources } from '../../src/ticket/resources.ts'
import type { Shaping } from '../../src/ticket/shaping.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import { NOW } from '../ticket/fixtures.ts'

export const MINUTE = 60_000
const NODES = ['node-a', 'node-b']
const AGENT = 'agent'
const SELLER = 'seller'
const BYTES = new Uint8Array()

type Terms = {
  readonly memory: number
  readonly percent: number
  readonly from: number
  readonly minutes: number
  readonly shaping?: Shaping | undefined
}

export type Step =
  | {
      readonly kind: 'ask'
      readonly node: number
      readonly size: number
      readonly minutes: number
      readonly ports: PortWish[]
      readonly who: number
      /** Which ticket it goes on with: of its own, of whoever else, or none that is known. */
      readonly renews: number | 'foreign' | undefined
      readonly isLost: boolean
      readonly shaping?: Shaping | undefined
    }
  | { readonly kind: 'settle'; readonly index: number }
  | { readonly kind: 'wait'; readonly minutes: number }
  | { readonly kind: 'drop' }
  | { readonly kind: 'restart' }
  /** The node counts what it should, and beside that whatever it likes. */
  | {
      readonly kind: 'delegate'
      readonly node: number
      readonly terms: Terms
      readonly counts: number[] | 'due'
    }
  | { readonly kind: 'hand again'; readonly index: number }
  | { readonly kind: 'buy'; readonly node: number; readonly terms: Terms; readonly renews: boolean }

const node = fc.nat({ max: NODES.length - 1 })
const shaping = fc.constantFrom<Shaping | undefined>(
  undefined,
  undefined,
  undefined,
  { icmpBps: 8000 },
  { icmpBps: 9000, egressShare: 2 },
  { egressShare: 1 }
)
const terms: fc.Arbitrary<Terms> = fc.record({
  memory: fc.integer({ min: 2, max: 16 }),
  percent: fc.constantFrom(50, 100, 150),
  from: fc.integer({ min: -60, max: 5 }),
  minutes: fc.integer({ min: 5, max: 400 }),
  shaping
})
const wish = fc.oneof(
  fc.constant<PortWish>({ protocol: 'tcp' }),
  fc.integer({ min: 1, max: 5 }).map((port): PortWish => ({ protocol: 'tcp', port }))
)

export interface StepsInit {
  /** A line counts as if it had no gaps, so that only without renewals the book's limit is exact. */
  readonly renewals: boolean
}

export function steps({ renewals }: StepsInit): fc.Arbitrary<Step[]> {
  const renews = renewals
    ? fc.constantFrom<number | 'foreign' | undefined>(undefined, undefined, 0, 1, 2, 5, 'foreign')
    : fc.constant(undefined)
  const ask: fc.Arbitrary<Step> = fc.record({
    kind: fc.constant('ask' as const),
    node,
    size: fc.nat({ max: 5 }),
    minutes: fc.integer({ min: 1, max: 200 }),
    ports: fc.array(wish, { maxLength: 2 }),
    who: fc.nat({ max: 1 }),
    renews,
    isLost: fc.nat({ max: 9 }).map((chance) => chance === 0),
    shaping
  })
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 12, arbitrary: ask },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('settle' as const), index: fc.nat({ max: 9 }) }) },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('wait' as const),
        minutes: fc.integer({ min: -300, max: 300 })
      })
    },
    { weight: 1, arbitrary: fc.constant<Step>({ kind: 'drop' }) },
    { weight: 1, arbitrary: fc.constant<Step>({ kind: 'restart' }) },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('delegate' as const),
        node,
        terms,
        counts: fc.oneof(fc.constant('due' as const), fc.array(fc.nat({ max: 9 }), { maxLength: 4 }))
      })
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('hand again' as const), index: fc.nat({ max: 9 }) })
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('buy' as const), node, terms, renews: fc.boolean() })
    }
  )
  return fc.array(step, { minLength: 6, maxLength: 32 })
}

/** One agent's book, with the disk under it and all that the world has seen of it. */
export class History {
  book = new TicketBook({ nodesMax: 2 })
  now = NOW
  readonly parents: Parent[] = []
  /** Tickets that left the house. */
  readonly out: Signed<Ticket>[] = []
  readonly #disk = {
    horizon: 0,
    sources: new Map<string, { source: Source; forgottenUntil: number }>(),
    tickets: new Map<string, { ticket: Signed<Ticket>; settled: boolean }>()
  }
  #seq = 0
  #ids = 0

  constructor() {
    for (const index of NODES.keys()) this.delegate(index, FIRST_TERMS, 'due')
  }

  play(all: readonly Step[]): this {
    for (const step of all) this.#play(step)
    return this
  }

  #play(step: Step): void {
    if (step.kind === 'ask') this.#ask(step)
    if (step.kind === 'settle') this.#settle(step.index)
    if (step.kind === 'wait') this.now += step.minutes * MINUTE
    if (step.kind === 'drop') this.#drop()
    if (step.kind === 'restart') this.#restart()
    if (step.kind === 'delegate') this.delegate(step.node, step.terms, step.counts)
    if (step.kind === 'hand again') this.#handAgain(step.index)
    if (step.kind === 'buy') this.#buy(step.node, step.terms, step.renews)
  }

  #ask(step: Step & { kind: 'ask' }): void {
    const { node: at, size, minutes, ports, who, renews, isLost } = step
    const first = typeof renews === 'number' ? this.out.at(-1 - renews) : undefined
    const supersedes = renews === 'foreign' ? 'foreign-line' : first?.id
    const shaping = step.shaping ?? first?.body.shaping
    const request: TicketRequest = {
      node: NODES[at] ?? '',
      resources: sized(size),
      ports,
      rights: [],
      durationMs: minutes * MINUTE,
      ...(shaping === undefined ? {} : { shaping }),
      ...(supersedes === undefined ? {} : { supersedes })
    }
    const issued = this.issue(request, `holder-${who}`)
    if (issued === undefined || !isLost) return
    // The disk failed: nobody has it.
    this.out.pop()
    this.#disk.tickets.delete(issued.ticket.id)
    this.book.unrecord(issued)
  }

  /** What an agent does with a request; the ticket, if it is granted. */
  issue(request: TicketRequest, holder: string): Issued | undefined {
    const decision = this.book.decide({ request, holder, slice: 'mesh' }, this.now)
    if ('refused' in decision) return undefined
    const { source, ports, shaping, notBefore, notAfter } = decision.granted
    const said = shaping === undefined ? {} : { shaping }
    const changes = { holder, resources: request.resources, ports, notBefore, notAfter, ...said }
    return this.sign(source, changes, request)
  }

  /** Signs whatever it is told to, and keeps it. */
  sign(source: Source, changes: Partial<Ticket>, { supersedes }: Partial<TicketRequest> = {}): Issued {
    this.#seq += 1
    const body = {
      issuer: AGENT,
      seq: this.#seq,
      parent: source.parent.id,
      node: source.node,
      slice: 'mesh',
      rights: [],
      canDelegate: false,
      redeemBefore: this.now,
      ...(supersedes === undefined ? {} : { supersedes }),
      ...changes
    } as unknown as Ticket
    const ticket = { id: this.#id('ticket'), bytes: BYTES, body }
    const issued = this.book.record(ticket)
    this.#disk.tickets.set(ticket.id, { ticket, settled: false })
    this.out.push(ticket)
    return issued
  }

  #settle(index: number): void {
    const issued = this.book.issued()[index]
    if (issued === undefined) return
    const kept = this.#disk.tickets.get(issued.ticket.id)
    if (kept !== undefined) kept.settled = true
    for (const { ticket } of this.book.settle([issued])) this.#disk.tickets.delete(ticket.id)
  }

  #drop(): void {
    this.#forget(this.book.dropOver(this.now))
  }

  #forget({ tickets, sources }: ReturnType<TicketBook['dropOver']>): void {
    for (const { ticket } of tickets) this.#disk.tickets.delete(ticket.id)
    for (const id of sources) this.#disk.sources.delete(id)
    this.#disk.horizon = this.book.horizon
  }

  #restart(): void {
    this.book = new TicketBook({ nodesMax: 2 })
    const { horizon, sources, tickets } = this.#disk
    this.book.restore({ horizon, sources: [...sources.values()], tickets: [...tickets.values()] })
  }

  delegate(at: number, { memory, percent, from, minutes, shaping }: Terms, wanted: number[] | 'due'): void {
    const issuer = NODES[at] ?? ''
    const due = this.book
      .issued()
      .filter(
        ({ ticket, settled, group }) => ticket.body.node === issuer && !settled && group === DELEGATIONS_GROUP
      )
      .map(({ ticket }) => ticket.id)
    const ofNode = this.out.filter(({ body }) => body.node === issuer)
    // A node counts what it likes beside what is due, such as tickets that it said had lapsed.
    const more = wanted === 'due' ? [] : wanted.flatMap((index) => ofNode.at(-1 - index)?.id ?? [])
    const counts = [...new Set([...due, ...more])]
    const body = {
      issuer,
      holder: AGENT,
      seq: this.parents.length + 1,
      notBefore: this.now + from * MINUTE,
      notAfter: this.now + (from + minutes) * MINUTE,
      resources: sized(memory),
      ports: [{ protocol: 'tcp', first: 1, last: 4 }],
      rights: [],
      ...(shaping === undefined ? {} : { shaping }),
      overbookPercent: percent,
      maxDepth: 3,
      epoch: 1,
      counts
    } as Delegation
    this.#take({ id: this.#id('delegation'), bytes: BYTES, body })
  }

  #take(delegation: Signed<Delegation>): void {
    if (!this.parents.includes(delegation)) this.parents.push(delegation)
    if (this.book.isOver(delegation, this.now)) return
    if (this.book.judge(delegation, this.now).verdict !== 'good') return
    this.#put(delegationSource(delegation))
  }

  #put(source: Source): void {
    const dropped = this.book.take(source)
    this.#disk.sources.set(source.parent.id, {
      source,
      forgottenUntil: this.book.forgottenUntil(source.node)
    })
    this.#forget(dropped)
  }

  #handAgain(index: number): void {
    const parent = this.parents[index]
    if (parent !== undefined && 'counts' in parent.body) this.#take(parent as Signed<Delegation>)
  }

  #buy(at: number, { memory, from, minutes, shaping }: Terms, renews: boolean): void {
    const issuer = NODES[at] ?? ''
    const line = this.parents.findLast(({ body }) => 'node' in body && body.node === issuer)
    const root = { issuer, holder: SELLER, maxDepth: 3, notBefore: 0, notAfter: Number.MAX_SAFE_INTEGER }
    const first = line === undefined ? undefined : ((line.body as Ticket).supersedes ?? line.id)
    const body = {
      issuer: SELLER,
      holder: AGENT,
      node: issuer,
      seq: this.parents.length + 1,
      notBefore: this.now + Math.min(0, from) * MINUTE,
      notAfter: this.now + (Math.min(0, from) + minutes) * MINUTE,
      resources: sized(memory),
      ports: [{ protocol: 'tcp', first: 4, last: 5 }],
      rights: [],
      ...(shaping === undefined ? {} : { shaping }),
      canDelegate: true,
      redeemBefore: this.now + minutes * MINUTE,
      ...(renews && first !== undefined ? { supersedes: first } : {})
    } as unknown as Ticket
    const ticket = { id: this.#id('wholesale'), bytes: BYTES, body }
    this.parents.push(ticket)
    const delegation = { id: `root-${issuer}`, bytes: BYTES, body: root as unknown as Delegation }
    this.#put(wholesaleSource(delegation, [ticket]))
  }

  /** What anybody who has all that left the house, or `those` of it, can prove. */
  findings(those: readonly Signed<Ticket>[] = this.out): Finding[] {
    const issued = this.parents.map((parent) => overIssued(parent, those))
    const twice = those.flatMap((one) =>
      those.map((other) => equivocation({ type: 'ticket', object: one }, { type: 'ticket', object: other }))
    )
    return [...issued, ...twice].filter((finding) => finding !== undefined)
  }

  /** Whether more is out than some parent allows, summed minute by minute and without lines: there are no renewals. */
  isTooMuchOut(): boolean {
    return this.parents.some(({ id, body }) => {
      const counts = 'counts' in body ? body.counts : []
      const percent = 'overbookPercent' in body ? body.overbookPercent : 100
      const limit = Math.floor((body.resources.memoryBytes * percent) / 100)
      const own = this.out.filter((ticket) => ticket.body.parent === id)
      const all = this.out.filter((ticket) => own.includes(ticket) || counts.includes(ticket.id))
      const at = (tickets: readonly Signed<Ticket>[], minute: number): Signed<Ticket>[] =>
        tickets.filter((ticket) => ticket.body.notBefore <= minute && minute < ticket.body.notAfter)
      return own.some(({ body: { notBefore, notAfter } }) => {
        for (let minute = notBefore; minute < notAfter; minute += MINUTE) {
          const sum = at(all, minute).reduce((total, ticket) => total + ticket.body.resources.memoryBytes, 0)
          if (sum > limit) return true
        }
        return false
      })
    })
  }

  /** A source that something may be cut from now, with the first node's delegation renewed if need be. */
  usable(): Source {
    this.now = Math.max(this.now, this.book.horizon + CLOCK_SKEW_MS)
    this.delegate(0, FIRST_TERMS, 'due')
    const id = this.book.delegation(NODES[0] ?? '', this.now)?.id
    const source = this.book.sources().find(({ parent }) => parent.id === id)
    if (source === undefined) throw new TypeError('the delegation was not taken')
    return source
  }

  #id(kind: string): string {
    this.#ids += 1
    return `${kind}-${this.#ids}`
  }
}

const FIRST_TERMS: Terms = {
  memory: 10,
  percent: 100,
  from: -1,
  minutes: 300,
  shaping: { icmpBps: 8500 }
}

export function sized(memoryBytes: number): Resources {
  return { ...NO_RESOURCES, memoryBytes }
}

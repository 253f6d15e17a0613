import test from 'ava'
import fc from 'fast-check'
import { TicketBook } from '../../src/agent/ticket-book.ts'
import type { Delegation } from '../../src/ticket/delegation.ts'
import { contains } from '../../src/ticket/interval.ts'
import type { PortProtocol } from '../../src/ticket/ports.ts'
import {
  NO_RESOURCES,
  addResources,
  resourcesExceeding,
  scaleResources,
  type Resources
} from '../../src/ticket/resources.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import { HOUR, NOW, amounts, delegate, makeKey } from '../ticket/fixtures.ts'

const node = makeKey()
const agent = makeKey()
const MINUTE = 60_000

type Step =
  | { readonly kind: 'ask'; readonly size: Resources; readonly minutes: number; readonly ports: Wish[] }
  | { readonly kind: 'wait'; readonly minutes: number }
  /** The node confirms that the `index`-th ticket is over. */
  | { readonly kind: 'settle'; readonly index: number }
type Wish = { readonly protocol: PortProtocol; readonly port?: number }

const wish = fc.oneof(
  fc.constant<Wish>({ protocol: 'tcp' }),
  fc.integer({ min: 19_998, max: 20_006 }).map((port): Wish => ({ protocol: 'tcp', port }))
)
const size = fc
  .record({ memoryBytes: fc.integer({ min: 0, max: 6 }), pids: fc.integer({ min: 0, max: 6 }) })
  .map((some): Resources => ({ ...NO_RESOURCES, ...some }))
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('ask' as const),
      size,
      minutes: fc.integer({ min: 1, max: 90 }),
      ports: fc.array(wish, { maxLength: 3 })
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('wait' as const), minutes: fc.integer({ min: 0, max: 50 }) })
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('settle' as const), index: fc.nat({ max: 20 }) }) }
)

/** Plays the steps and gives the tickets that no node has confirmed to be over. Unsigned: a book looks at bodies only. */
function play(delegation: Signed<Delegation>, steps: readonly Step[]): Signed<Ticket>[] {
  const book = new TicketBook()
  book.addDelegation(delegation)
  const issued: Signed<Ticket>[] = []
  let now = NOW
  for (const one of steps) {
    if (one.kind === 'wait') {
      now += one.minutes * MINUTE
      for (const ticket of book.over(now)) book.forget(ticket)
    } else if (one.kind === 'settle') {
      const [ticket] = issued.splice(one.index, 1)
      if (ticket !== undefined) book.forget(ticket)
    } else {
      const request = {
        node: node.principal,
        resources: one.size,
        ports: one.ports,
        rights: [],
        durationMs: one.minutes * MINUTE
      }
      const decision = book.decide(request, now)
      if ('refused' in decision) continue
      const { ports, notBefore, notAfter } = decision.granted
      const body = {
        node: node.principal,
        resources: one.size,
        ports,
        notBefore,
        notAfter
      } as unknown as Ticket
      const ticket = { id: `${issued.length} ${now} ${Math.random()}`, bytes: new Uint8Array(), body }
      book.record(ticket)
      issued.push(ticket)
    }
  }
  return issued
}

function sumAt(tickets: readonly Signed<Ticket>[], instant: number): Resources {
  return tickets
    .filter(({ body }) => contains(body, instant))
    .reduce((sum, { body }) => addResources(sum, body.resources), NO_RESOURCES)
}

test('at every instant what is issued is within the delegation times what it may be overbooked by', (t) => {
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 40 }),
      fc.constantFrom(50, 100, 133, 200),
      (steps, overbookPercent) => {
        const resources = { ...NO_RESOURCES, memoryBytes: 10, pids: 10 }
        const delegation = delegation10(overbookPercent, resources)
        const issued = play(delegation, steps)
        for (const { body } of issued) {
          const sum = sumAt(issued, body.notBefore)
          t.deepEqual(resourcesExceeding(sum, scaleResources(resources, overbookPercent)), [])
        }
      }
    ),
    { numRuns: 500 }
  )
})

test('an exclusive port is in one ticket at a time', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const issued = play(delegation10(200, amounts(10)), steps)
      for (const { body } of issued) {
        const at = issued.filter((other) => contains(other.body, body.notBefore))
        const ports = at.flatMap((ticket) =>
          ticket.body.ports.map(({ protocol, first }) => `${protocol}/${first}`)
        )
        t.is(new Set(ports).size, ports.length)
      }
    }),
    { numRuns: 500 }
  )
})

test('what is said to be available is granted', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 10 }), (steps) => {
      const book = new TicketBook()
      book.addDelegation(delegation10(100, amounts(10)))
      for (const one of steps) {
        if (one.kind !== 'ask') continue
        const durationMs = one.minutes * MINUTE
        const request = { node: node.principal, resources: one.size, ports: [], rights: [], durationMs }
        const decision = book.decide(request, NOW)
        if ('refused' in decision) continue
        const body = {
          node: node.principal,
          resources: one.size,
          ...decision.granted
        } as unknown as Ticket
        book.record({ id: String(Math.random()), bytes: new Uint8Array(), body })
      }
      const resources = book.available(node.principal, NOW)
      if (resources === undefined) throw new TypeError('a delegation is held')
      const all = { node: node.principal, resources, ports: [], rights: [], durationMs: HOUR }
      t.true('granted' in book.decide(all, NOW))
    }),
    { numRuns: 200 }
  )
})

const made = new Map<string, Signed<Delegation>>()

/** Signed once for all runs of a property: signing is the dear part. */
function delegation10(overbookPercent: number, resources: Resources): Signed<Delegation> {
  const key = JSON.stringify([overbookPercent, resources])
  const known = made.get(key)
  if (known !== undefined) return known
  const ports = [{ protocol: 'tcp' as const, first: 20_000, last: 20_004 }]
  const signed = delegate(node, agent, { overbookPercent, resources, ports })
  made.set(key, signed)
  return signed
}

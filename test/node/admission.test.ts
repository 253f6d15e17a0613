import test from 'ava'
import fc from 'fast-check'
import { admissionFault, overdrawnFault } from '../../src/node/admission.ts'
import { Leased } from '../../src/node/leased.ts'
import type { Chain } from '../../src/ticket/chain.ts'
import type { Delegation } from '../../src/ticket/delegation.ts'
import {
  NO_RESOURCES,
  RESOURCE_NAMES,
  addResources,
  resourcesExceeding,
  scaleResources,
  type Resources
} from '../../src/ticket/resources.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { lineOf, type Ticket } from '../../src/ticket/ticket.ts'

/** Nothing here looks at signatures, so nothing is signed. */
const object = <T>(id: string, body: Partial<T>): Signed<T> => ({
  id,
  bytes: new Uint8Array(),
  body: body as T
})

const resources = fc
  .tuple(...RESOURCE_NAMES.map(() => fc.integer({ min: 0, max: 5 })))
  .map((amounts) => Object.fromEntries(RESOURCE_NAMES.map((name, at) => [name, amounts[at]])) as Resources)
const CAPACITY: Resources = Object.fromEntries(RESOURCE_NAMES.map((name) => [name, 10])) as Resources
const SHARE = scaleResources(CAPACITY, 60)

const step = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('lease' as const),
      agent: fc.nat({ max: 2 }),
      /** Under a ticket that this agent sold to another, or by itself. */
      wholesale: fc.option(fc.nat({ max: 1 }), { nil: undefined }),
      resources,
      port: fc.nat({ max: 6 }),
      minutes: fc.integer({ min: 1, max: 30 })
    })
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('end' as const), index: fc.nat({ max: 9 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('wait' as const), minutes: fc.nat({ max: 20 }) }) }
)

interface Held {
  readonly id: string
  readonly agent: string
  readonly links: readonly string[]
  readonly resources: Resources
  readonly port: number
}

const WHOLESALE = scaleResources(CAPACITY, 30)

function chainOf(one: { agent: number; wholesale: number | undefined }, leaf: Signed<Ticket>): Chain {
  const holder = `agent ${one.agent}`
  const body = { holder, resources: SHARE, overbookPercent: 150 }
  const sold = object<Ticket>(`sold ${one.agent} ${one.wholesale}`, { resources: WHOLESALE })
  const tickets = one.wholesale === undefined ? [leaf] : [sold, leaf]
  return { delegation: object<Delegation>(`delegation ${one.agent}`, body), tickets }
}

const sumOf = (held: readonly Held[]): Resources =>
  held.reduce((sum, lease) => addResources(sum, lease.resources), NO_RESOURCES)

test('whatever is asked for, at every instant no more is leased than there is, than an agent may issue, and than a ticket has', (t) => {
  let refused = 0
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const leased = new Leased()
      const held: Held[] = []
      let now = 0
      for (const [index, one] of steps.entries()) {
        if (one.kind === 'wait') now += one.minutes
        if (one.kind === 'end') for (const { id } of held.splice(one.index, 1)) leased.delete(id)
        if (one.kind !== 'lease') continue
        const ports = one.port === 0 ? [] : [{ protocol: 'tcp' as const, first: one.port, last: one.port }]
        const wanted = { notBefore: now, notAfter: now + one.minutes, resources: one.resources, ports }
        const leaf = object<Ticket>(`ticket ${index}`, { ...wanted })
        const chain = chainOf(one, leaf)
        if (
          (overdrawnFault(chain, wanted, leased) ?? admissionFault(wanted, leased, CAPACITY)) !== undefined
        ) {
          refused += 1
          continue
        }
        const agent = `agent ${one.agent}`
        const links = chain.tickets.map(({ id }) => id)
        const { notBefore } = wanted
        leased.set(leaf.id, {
          notBefore,
          resources: one.resources,
          ports,
          vserver: leaf.id,
          agent,
          lines: chain.tickets.map(lineOf)
        })
        held.push({ id: leaf.id, agent, links, resources: one.resources, port: one.port })
        if (resourcesExceeding(sumOf(held), CAPACITY).length > 0) return false
        const ofAgent = held.filter((lease) => lease.agent === agent)
        if (resourcesExceeding(sumOf(ofAgent), scaleResources(SHARE, 150)).length > 0) return false
        const [first] = links
        const under = held.filter((lease) => lease.links.length > 1 && lease.links[0] === first)
        if (resourcesExceeding(sumOf(under), WHOLESALE).length > 0) return false
        const taken = held.flatMap(({ port }) => (port === 0 ? [] : [port]))
        if (new Set(taken).size !== taken.length) return false
      }
      return true
    }),
    { numRuns: 10_000 }
  )
  t.true(refused > 10_000, 'and much was refused')
})

test('what fits is not refused', (t) => {
  fc.assert(
    fc.property(fc.array(resources, { maxLength: 12 }), resources, (leases, wanted) => {
      const leased = new Leased()
      for (const [index, amounts] of leases.entries()) {
        const demand = { notBefore: 0, resources: amounts, ports: [], vserver: `${index}` }
        leased.set(`${index}`, { ...demand, agent: 'a', lines: [`${index}`] })
      }
      const total = leases.reduce(addResources, wanted)
      const demand = { notBefore: 0, notAfter: 1, resources: wanted, ports: [] }
      const isRefused = admissionFault(demand, leased, CAPACITY) !== undefined
      return isRefused === resourcesExceeding(total, CAPACITY).length > 0
    }),
    { numRuns: 10_000 }
  )
  t.pass()
})

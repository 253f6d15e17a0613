import test from 'ava'
import fc from 'fast-check'
import { chainFault } from '../../src/ticket/chain.ts'
import type { Delegation } from '../../src/ticket/delegation.ts'
import { contains, isWithin, overlaps } from '../../src/ticket/interval.ts'
import { RESOURCE_NAMES, type Resources } from '../../src/ticket/resources.ts'
import { RIGHTS, rightsFault } from '../../src/ticket/rights.ts'
import { SHAPING_NAMES, type ShapingName } from '../../src/ticket/shaping.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'

const object = <T>(id: string, body: T): Signed<T> => ({ id, bytes: new Uint8Array(), body })
const small = fc.integer({ min: 0, max: 3 })
const interval = fc
  .tuple(fc.integer({ min: 0, max: 6 }), fc.integer({ min: 1, max: 6 }))
  .map(([notBefore, length]) => ({ notBefore, notAfter: notBefore + length }))

const link = fc.record({
  interval,
  amounts: fc.tuple(...RESOURCE_NAMES.map(() => small)),
  ports: fc.array(
    fc
      .tuple(fc.constantFrom('tcp' as const, 'udp' as const), fc.integer({ min: 1, max: 6 }), small)
      .map(([protocol, first, length]) => ({ protocol, first, last: first + length })),
    { maxLength: 2 }
  ),
  // Mostly those of ordinary slices: of all subsets few go together.
  rights: fc.oneof(fc.subarray(['raw-socket' as const]), fc.subarray([...RIGHTS])),
  shaping: fc.oneof(
    fc.constant(undefined),
    fc.record(
      Object.fromEntries(SHAPING_NAMES.map((name) => [name, fc.integer({ min: 1, max: 3 })])) as Record<
        ShapingName,
        fc.Arbitrary<number>
      >,
      { requiredKeys: [] }
    )
  ),
  canDelegate: fc.boolean(),
  holder: fc.constantFrom('a', 'b'),
  issuer: fc.constantFrom('a', 'b'),
  node: fc.constantFrom('node', 'node', 'node', 'other'),
  slice: fc.constantFrom('one', 'one', 'two', undefined),
  redeemBefore: fc.integer({ min: 4, max: 9 })
})
type Link = typeof link extends fc.Arbitrary<infer T> ? T : never

const FIELDS = [
  'interval',
  'amounts',
  'ports',
  'rights',
  'shaping',
  'canDelegate',
  'node',
  'slice',
  'redeemBefore'
] as const

/** A child that has what its parent has, but for a few fields that are as they come: often within, often beyond. */
const child = fc.record({ link, own: fc.subarray([...FIELDS, 'issuer' as const], { maxLength: 3 }) })

function childOf(parent: Link, { link: drawn, own }: { link: Link; own: readonly (keyof Link)[] }): Link {
  const kept = { ...parent, issuer: parent.holder, holder: drawn.holder, canDelegate: true }
  return own.reduce<Link>((made, field) => ({ ...made, [field]: drawn[field] }), kept)
}

function bodyOf(one: Link) {
  const { interval: term, amounts, ports, rights, shaping, holder } = one
  const resources = Object.fromEntries(RESOURCE_NAMES.map((name, at) => [name, amounts[at]])) as Resources
  return { ...term, seq: 1, resources, ports, rights, holder, ...(shaping === undefined ? {} : { shaping }) }
}

/** The rule of design §3 said once more, in the plainest words: port by port, instant by instant. */
function mayFollow(child: Ticket, parent: Delegation | Ticket, isTicket: boolean): boolean {
  const instants = Array.from({ length: 14 }, (_one, instant) => instant)
  const portsOf = (ports: Ticket['ports']): Set<string> =>
    new Set(
      ports.flatMap(({ protocol, first, last }) =>
        Array.from({ length: last - first + 1 }, (_one, at) => `${protocol} ${first + at}`)
      )
    )
  const above = parent as Ticket
  return (
    child.issuer === parent.holder &&
    RESOURCE_NAMES.every((name) => child.resources[name] <= parent.resources[name]) &&
    instants.every((instant) => !contains(child, instant) || contains(parent, instant)) &&
    portsOf(child.ports).isSubsetOf(portsOf(parent.ports)) &&
    child.rights.every((right) => parent.rights.includes(right)) &&
    SHAPING_NAMES.every((name) => {
      const [has, had] = [child.shaping?.[name], parent.shaping?.[name]]
      // A share that nobody speaks of is one; a bound that nobody speaks of is none.
      if (name === 'egressShare') return (has ?? 1) <= (had ?? 1)
      return had === undefined || (has !== undefined && has <= had)
    }) &&
    (!isTicket ||
      (above.canDelegate &&
        child.redeemBefore <= above.redeemBefore &&
        (above.slice === undefined || above.slice === child.slice)))
  )
}

test('a chain holds exactly if every child is within its parent', (t) => {
  let held = 0
  fc.assert(
    fc.property(link, fc.array(child, { minLength: 1, maxLength: 3 }), (root, drawn) => {
      const links = drawn.reduce<Link[]>((made, one) => [...made, childOf(made.at(-1) ?? root, one)], [])
      const delegation = object<Delegation>('d', {
        ...bodyOf(root),
        issuer: 'node',
        overbookPercent: 100,
        maxDepth: 3,
        epoch: 1,
        counts: []
      })
      const tickets = links.map((one, at) => {
        const { slice, ...rest } = one
        const common = { ...bodyOf(one), issuer: rest.issuer, node: rest.node, canDelegate: rest.canDelegate }
        const parent = at === 0 ? 'd' : `t${at - 1}`
        const body = { ...common, parent, redeemBefore: rest.redeemBefore }
        return object<Ticket>(`t${at}`, slice === undefined ? body : { ...body, slice })
      })
      const leaf = tickets.at(-1)!.body
      const now = leaf.notBefore
      const expected =
        tickets.every(({ body }) => body.node === 'node') &&
        tickets.every(({ body }, at) => {
          const parent = at === 0 ? delegation : tickets[at - 1]!
          return mayFollow(body, parent.body, at > 0)
        }) &&
        leaf.slice !== undefined &&
        rightsFault(leaf.rights, leaf.ports) === undefined &&
        now < leaf.redeemBefore
      const fault = chainFault({ delegation, tickets }, { node: 'node', holder: leaf.holder, now })
      if (expected) held += 1
      return (fault === undefined) === expected
    }),
    { numRuns: 20_000 }
  )
  t.true(held > 1000 && held < 19_000, `${held} chains of 20,000 hold`)
})

test('intervals are half open, in every combination', (t) => {
  const instants = Array.from({ length: 14 }, (_one, instant) => instant)
  fc.assert(
    fc.property(interval, interval, (a, b) => {
      const [inA, inB] = [a, b].map((one) => new Set(instants.filter((instant) => contains(one, instant))))
      if (inA === undefined || inB === undefined) return false
      return (
        inA.size === a.notAfter - a.notBefore &&
        isWithin(a, b) === inA.isSubsetOf(inB) &&
        overlaps(a, b) === !inA.isDisjointFrom(inB)
      )
    }),
    { numRuns: 10_000 }
  )
  t.pass()
})

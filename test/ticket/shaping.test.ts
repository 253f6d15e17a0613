import test from 'ava'
import fc from 'fast-check'
import { delegationObject } from '../../src/ticket/delegation.ts'
import {
  SHAPING_NAMES,
  shapingDiffering,
  shapingExceeding,
  shapingWithin,
  type Shaping
} from '../../src/ticket/shaping.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
import { delegate, issue, makeKey } from './fixtures.ts'

const [node, agent, holder] = [makeKey(), makeKey(), makeKey()]
const amount = fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined })
const anyShaping: fc.Arbitrary<Shaping | undefined> = fc.option(
  fc
    .tuple(...SHAPING_NAMES.map(() => amount))
    .map((drawn) =>
      Object.fromEntries(
        SHAPING_NAMES.map((name, at) => [name, drawn[at]]).filter(([, value]) => value !== undefined)
      )
    ),
  { nil: undefined }
)

test('shaping only narrows, and what fits twice fits at once', (t) => {
  let fitting = 0
  fc.assert(
    fc.property(anyShaping, anyShaping, anyShaping, (a, b, c) => {
      const fits = (one: typeof a, other: typeof a): boolean => shapingExceeding(one, other).length === 0
      if (!fits(a, a)) return false
      if (fits(a, b) && fits(b, a) && shapingDiffering(a, b).length > 0) return false
      if (!fits(a, b) || !fits(b, c)) return true
      fitting += 1
      return fits(a, c)
    }),
    { numRuns: 20_000 }
  )
  t.true(fitting > 100, `${fitting} fit`)
})

test('who asks for nothing gets the tightest bounds there are, and never a larger share', (t) => {
  fc.assert(
    fc.property(anyShaping, anyShaping, anyShaping, (asked, first, second) => {
      const made = shapingWithin(asked, first, second)
      const isAsAsked = SHAPING_NAMES.every(
        (name) => asked?.[name] === undefined || made?.[name] === asked[name]
      )
      const excess = [first, second].flatMap((limit) => shapingExceeding(made, limit))
      return (
        isAsAsked &&
        made?.egressShare === asked?.egressShare &&
        // What goes beyond was asked for by name.
        excess.every((name) => name === 'egressShare' || asked?.[name] !== undefined)
      )
    }),
    { numRuns: 20_000 }
  )
  t.pass()
})

test('a ticket with shaping reads as it was written, and one without as ever', (t) => {
  const shaping = {
    icmpBps: 8000,
    optionsBps: 64_000,
    newDestinationsBps: 16_000,
    destinationsPerMinute: 8,
    egressShare: 32
  }
  const delegation = delegate(node, agent, { shaping })
  const ticket = issue(delegation, agent, holder, { shaping: { ...shaping, egressShare: 2 } })
  t.deepEqual(delegationObject.open(delegation.bytes).body.shaping, shaping)
  t.deepEqual(ticketObject.open(ticket.bytes).body.shaping, { ...shaping, egressShare: 2 })
  const plain = ticketObject.open(issue(delegation, agent, holder).bytes)
  t.false('shaping' in plain.body)
})

for (const [title, shaping] of [
  ['nothing in it', {}],
  ['a rate of nothing', { icmpBps: 0 }],
  ['a negative rate', { optionsBps: -8000 }],
  ['no destinations', { destinationsPerMinute: 7 }],
  ['no share', { egressShare: 0 }],
  ['too large a share', { egressShare: 33 }],
  ['something else in it', { igmpBps: 8000 }]
] as const) {
  test(`shaping with ${title} is neither signed nor read`, (t) => {
    t.throws(() => issue(delegate(node, agent), agent, holder, { shaping: shaping as Shaping }), {
      code: 'ENCODING_INVALID'
    })
  })
}

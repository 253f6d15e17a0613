/** What principals and organisations may hold of an agent together. */
import test from 'ava'
import fc from 'fast-check'
import * as v from 'valibot'
import type { AdmissionPolicy, Quota, Terms } from '../../src/agent/admission-policy.ts'
import { peakClaimed, type Claim } from '../../src/ticket/claims.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { lineOf, type Ticket } from '../../src/ticket/ticket.ts'
import { cborCodec } from '../../src/wire/codec.ts'
import { HOUR, amounts, delegate, makeKey } from '../ticket/fixtures.ts'
import { vouch } from '../ticket/memberships.ts'
import {
  agentLab,
  handOver,
  openGrant,
  outcome,
  request,
  ticketOf,
  type AgentLab,
  type Opened
} from './agent-lab.ts'

const node = makeKey()
const other = makeKey()
const organisation = makeKey()
const second = makeKey()
const member = makeKey()
const colleague = makeKey()

const terms: Terms = {
  grants: 'slices',
  durationMsMax: 4 * HOUR,
  rights: [],
  perPrincipal: {},
  perOrganisation: {}
}

function only(perPrincipal: Quota, perOrganisation: Quota = {}): AdmissionPolicy {
  const match = { principals: [], organisations: [organisation.principal] }
  return { rules: [{ name: 'members', match, terms: { ...terms, perPrincipal, perOrganisation } }] }
}

async function ready(policy: AdmissionPolicy, from: Parameters<typeof agentLab>[1] = {}): Promise<AgentLab> {
  const lab = await agentLab({ policy }, from)
  for (const one of [node, other]) await handOver(lab, one)
  return lab
}

/** Asks as a member of organisations. */
async function askAs(
  lab: AgentLab,
  holder: SigningKey,
  organisations: readonly SigningKey[],
  ...requests: ReturnType<typeof request>[]
): Promise<Opened[]> {
  const memberships = organisations.map((by) => vouch(by, holder.principal).bytes)
  const { grants } = await lab.as(holder.principal)('getTickets', { slice: 'mesh', memberships, requests })
  return grants.map(openGrant)
}

async function askOne(
  lab: AgentLab,
  holder: SigningKey,
  changes: Partial<ReturnType<typeof request>> = {}
): Promise<Opened> {
  const [opened] = await askAs(lab, holder, [organisation], request(node, changes))
  if (opened === undefined) throw new TypeError('no answer')
  return opened
}

function said(opened: Opened | undefined): string {
  return opened !== undefined && 'refusal' in opened ? opened.refusal.body.message : ''
}

test('a principal has so many tickets at a time, of all nodes together, and renews them all the same', async (t) => {
  const lab = await ready(only({ tickets: 2 }))
  const first = ticketOf(await askOne(lab, member))
  t.is(outcome(await askOne(lab, member, { node: other.principal })), 'granted')
  const refused = await askOne(lab, member, { node: other.principal })
  t.is(outcome(refused), 'QUOTA_EXCEEDED')
  t.is(said(refused), 'the quota of tickets per principal is 2, and 2 are out (by the rule "members")')
  t.is(outcome(await askOne(lab, member, { supersedes: first.id, durationMs: 2 * HOUR })), 'granted')
  t.is(outcome(await askOne(lab, member, { supersedes: delegate(node, member).id })), 'QUOTA_EXCEEDED')
  t.is(outcome(await askOne(lab, colleague)), 'granted')
})

const limits: Readonly<Record<string, readonly [quota: Quota, words: string]>> = {
  'processor time': [{ cpuMillis: 250 }, 'the quota of cpu per principal is 250m, of which 200m are held'],
  memory: [{ memoryBytes: 2_500_000 }, 'the quota of memory per principal is 2.4MiB, of which'],
  disk: [{ diskBytes: 5_000_000 }, 'the quota of disk per principal is'],
  egress: [{ egressBps: 25_000 }, 'the quota of egress per principal is 25kbps']
}
for (const [name, [quota, words]] of Object.entries(limits)) {
  test(`a principal holds so much ${name} at any instant and no more`, async (t) => {
    const lab = await ready(only(quota))
    t.is(outcome(await askOne(lab, member)), 'granted')
    const first = ticketOf(await askOne(lab, member, { node: other.principal }))
    const refused = await askOne(lab, member)
    t.is(outcome(refused), 'QUOTA_EXCEEDED')
    t.true(said(refused).startsWith(words), said(refused))
    t.is(outcome(await askOne(lab, member, { node: other.principal, supersedes: first.id })), 'granted')
    // Without the quota it is there to be had.
    lab.agent.setPolicy(only({}))
    t.is(outcome(await askOne(lab, member)), 'granted')
  })
}

test('members of an organisation share its quota, and others have theirs', async (t) => {
  const lab = await ready(only({ tickets: 2 }, { cpuMillis: 300 }))
  t.is(outcome(await askOne(lab, member)), 'granted')
  t.is(outcome(await askOne(lab, colleague)), 'granted')
  t.is(outcome(await askOne(lab, colleague)), 'granted')
  const refused = await askOne(lab, member)
  t.is(outcome(refused), 'QUOTA_EXCEEDED')
  t.regex(
    said(refused),
    new RegExp(`cpu per organisation, of ${organisation.principal}, is 300m, of which 300m`)
  )
  const stranger = await askAs(lab, makeKey(), [second], request(node))
  t.deepEqual(stranger.map(outcome), ['DENIED'])
})

test('requests at the same time never get the last of a quota twice', async (t) => {
  const lab = await ready(only({}, { tickets: 5 }))
  const asked = Array.from({ length: 16 }, (_one, index) =>
    askOne(lab, index % 2 === 0 ? member : colleague, { resources: amounts(0) })
  )
  const opened = await Promise.all(asked)
  t.is(opened.filter((one) => outcome(one) === 'granted').length, 5)
  t.is(opened.filter((one) => outcome(one) === 'QUOTA_EXCEEDED').length, 11)
})

test('a quota is kept over a restart, and is free when tickets are settled', async (t) => {
  const lab = await ready(only({}, { tickets: 2 }))
  await askOne(lab, member)
  await askOne(lab, member)
  const again = await lab.restart()
  t.is(outcome(await askOne(again, colleague)), 'QUOTA_EXCEEDED')
  again.answer = () => 'lapsed'
  await again.clock.advance(330_000)
  t.is(outcome(await askOne(again, colleague)), 'granted')
  const third = await again.restart()
  t.is(outcome(await askOne(third, member)), 'granted', 'what is settled stays so')
  t.is(outcome(await askOne(third, member)), 'QUOTA_EXCEEDED')
})

test('a quota is free when the term of a ticket is over, whatever its node says', async (t) => {
  const lab = await ready(only({ tickets: 1 }))
  t.is(outcome(await askOne(lab, member)), 'granted')
  await lab.clock.advance(HOUR - 1000)
  t.is(outcome(await askOne(lab, member)), 'QUOTA_EXCEEDED')
  await lab.clock.advance(80_000)
  t.is(outcome(await askOne(lab, member)), 'granted')
})

test('when the store refuses a ticket it counts for nobody', async (t) => {
  const lab = await ready(only({}, { tickets: 1 }))
  lab.store.plan(1, 'fail')
  await t.throwsAsync(askOne(lab, member))
  t.is(outcome(await askOne(lab, colleague)), 'granted')
})

test('tickets that were kept before organisations were are read, and count for their holders', async (t) => {
  const lab = await ready(only({ tickets: 1 }, { tickets: 1 }))
  t.is(outcome(await askOne(lab, member)), 'granted')
  const codec = cborCodec(v.record(v.string(), v.unknown()), { bytesMax: 100_000, depthMax: 4 })
  const [[key, value] = ['', new Uint8Array()]] = await Array.fromAsync(lab.store.iterate('agent-tickets'))
  const { organisation: kept, ...before } = codec.decode(value)
  t.is(kept, organisation.principal)
  await lab.store.commit([{ table: 'agent-tickets', key, value: codec.encode(before) }])
  const again = await lab.restart()
  t.is(outcome(await askOne(again, member)), 'QUOTA_EXCEEDED')
  t.is(outcome(await askOne(again, colleague)), 'granted')
})

test('who is vouched for by several organisations counts for the one whose rule matched first', async (t) => {
  const rule = (name: string, by: SigningKey) => ({
    name,
    match: { principals: [], organisations: [by.principal] },
    terms: { ...terms, perOrganisation: { tickets: 1 } }
  })
  const lab = await ready({ rules: [rule('one', second), rule('two', organisation)] })
  const both = [organisation, second]
  t.deepEqual((await askAs(lab, member, both, request(node))).map(outcome), ['granted'])
  const [refused] = await askAs(lab, colleague, both, request(node))
  t.regex(said(refused), /by the rule "one"/)
  t.deepEqual((await askAs(lab, colleague, [organisation], request(node))).map(outcome), ['granted'])
})

test('rules are looked at in order, and say who they are', async (t) => {
  const rules: AdmissionPolicy['rules'] = [
    { name: 'banned', match: { principals: [colleague.principal], organisations: [] } },
    {
      name: 'short',
      match: { principals: [], organisations: [organisation.principal] },
      terms: { ...terms, durationMsMax: HOUR, rights: ['raw-socket'] }
    },
    { name: 'default', terms }
  ]
  const lab = await ready({ rules })
  t.is(
    said(await askOne(lab, colleague)),
    `this agent grants nothing to ${colleague.principal} (by the rule "banned")`
  )
  t.is(
    said(await askOne(lab, member, { durationMs: 2 * HOUR })),
    'the longest term is 1h (by the rule "short")'
  )
  t.not(said(await askOne(lab, member, { rights: ['raw-socket'] })), '', 'the node delegates none')
  const stranger = makeKey()
  const [longer] = await askAs(lab, stranger, [], request(node, { durationMs: 2 * HOUR }))
  t.is(outcome(longer), 'granted')
  const [right] = await askAs(lab, stranger, [], request(node, { rights: ['raw-socket'] }))
  t.is(said(right), 'this agent does not grant the right raw-socket (by the rule "default")')
  t.is(outcome(right), 'DENIED')
})

test('a holder cannot go on with one ticket without end', async (t) => {
  const lab = await ready(only({ tickets: 1 }))
  const { id } = ticketOf(await askOne(lab, member))
  const codes: string[] = []
  for (let turn = 0; turn < 33; turn++) codes.push(outcome(await askOne(lab, member, { supersedes: id })))
  t.deepEqual(
    codes.slice(0, 31),
    Array.from({ length: 31 }, () => 'granted')
  )
  t.is(codes[31], 'QUOTA_EXCEEDED')
})

/** One step of a history, over indices of holders, nodes and tickets. */
type Step =
  | {
      readonly kind: 'ask'
      readonly holder: number
      readonly of: number
      readonly factor: number
      readonly hours: number
    }
  | { readonly kind: 'renew'; readonly ticket: number; readonly hours: number }
  | { readonly kind: 'wait'; readonly minutes: number }
  | { readonly kind: 'end'; readonly ticket: number }
  | { readonly kind: 'restart' }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('ask' as const),
        holder: fc.nat(2),
        of: fc.nat(1),
        factor: fc.nat(4),
        hours: fc.integer({ min: 1, max: 4 })
      })
    },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('renew' as const),
        ticket: fc.nat(20),
        hours: fc.integer({ min: 1, max: 4 })
      })
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant('wait' as const), minutes: fc.integer({ min: 1, max: 90 }) })
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('end' as const), ticket: fc.nat(20) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) }
  ),
  { maxLength: 40 }
)

const PRINCIPAL: Quota = { tickets: 3, cpuMillis: 500, memoryBytes: 6_000_000 }
const ORGANISATION: Quota = { tickets: 4, cpuMillis: 700, diskBytes: 16_000_000, egressBps: 80_000 }

/** Plays a history; gives the first excess that anybody could see in the tickets that are out. */
async function excessOf(history: readonly Step[], policy: AdmissionPolicy): Promise<string | undefined> {
  const holders = [member, colleague, makeKey()]
  let lab = await ready(policy)
  const tickets: Signed<Ticket>[] = []
  const ended = new Set<string>()
  for (const step of history) {
    const named = 'ticket' in step ? tickets[step.ticket % Math.max(1, tickets.length)] : undefined
    switch (step.kind) {
      case 'ask': {
        const { hours, factor, of } = step
        const holder = holders[step.holder] ?? member
        const changes = { resources: amounts(factor), durationMs: hours * HOUR }
        const opened = await askAs(lab, holder, [organisation], request([node, other][of] ?? node, changes))
        tickets.push(...opened.flatMap((one) => ('ticket' in one ? [one.ticket] : [])))
        break
      }
      case 'renew': {
        if (named === undefined) break
        const { resources, supersedes = named.id, holder: principal } = named.body
        const holder = holders.find((one) => one.principal === principal) ?? member
        const changes = { node: named.body.node, resources, supersedes, durationMs: step.hours * HOUR }
        const opened = await askAs(lab, holder, [organisation], request(node, changes))
        tickets.push(...opened.flatMap((one) => ('ticket' in one ? [one.ticket] : [])))
        break
      }
      case 'wait':
        lab.answer = ({ id }) => (ended.has(id) ? 'ended' : 'redeemed')
        await lab.clock.advance(step.minutes * 60_000)
        break
      case 'end':
        if (named !== undefined) ended.add(named.id)
        break
      case 'restart':
        lab = await lab.restart()
        break
    }
    const states = new Map(lab.agent.tickets().map(({ id, state }) => [id, state]))
    const out = tickets.filter(({ id }) => states.get(id) === 'out')
    const excess =
      excessIn(out, ORGANISATION, lab.clock.now()) ??
      [...Map.groupBy(out, ({ body }) => body.holder).values()]
        .map((ofOne) => excessIn(ofOne, PRINCIPAL, lab.clock.now()))
        .find((one) => one !== undefined)
    if (excess !== undefined) return excess
  }
  await lab.agent.stop()
  return undefined
}

/** By the plain definition: at each instant from now on, what tickets claim, those of one line once. */
function excessIn(tickets: readonly Signed<Ticket>[], quota: Quota, now: number): string | undefined {
  const claims = [...Map.groupBy(tickets, lineOf).values()].map((line): Claim => {
    const bodies = line.map(({ body }) => body)
    return {
      notBefore: Math.min(...bodies.map(({ notBefore }) => notBefore)),
      notAfter: Math.max(...bodies.map(({ notAfter }) => notAfter)),
      resources: bodies.reduce((most, one) =>
        one.resources.cpuMillis > most.resources.cpuMillis ? one : most
      ).resources
    }
  })
  if (claims.length > (quota.tickets ?? Infinity)) return `${claims.length} tickets`
  const peak = peakClaimed(claims, { notBefore: now, notAfter: now + 10 * HOUR })
  const { tickets: _count, ...amounts } = quota
  return Object.keys(amounts).find(
    (name) => peak[name as keyof typeof amounts] > (amounts[name as keyof typeof amounts] ?? 0)
  )
}

test('no sequence of grants, renewals, ends and restarts goes beyond a quota', async (t) => {
  await fc.assert(
    fc.asyncProperty(steps, async (history) => {
      t.is(await excessOf(history, only(PRINCIPAL, ORGANISATION)), undefined)
    }),
    { numRuns: 40 }
  )
  // Histories that go beyond them where there are none, so that there is something to hold back.
  const found = await fc.check(
    fc.asyncProperty(steps, async (history) => (await excessOf(history, only({}))) === undefined),
    { numRuns: 60, endOnFailure: true }
  )
  t.true(found.failed)
})

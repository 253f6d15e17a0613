/** How tickets are gathered: as planned, past refusals and slow agents, and never more of them than are needed. */
import test from 'ava'
import { setTimeout as delay } from 'node:timers/promises'
import { FailedPairs } from '../../src/broker/failed-pairs.ts'
import type { TicketSearch } from '../../src/broker/gathering.ts'
import { compilePlacement, type PlacementWish } from '../../src/broker/placement.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
import { HOUR, amounts } from '../ticket/fixtures.ts'
import { nodeAdvert } from './adverts.ts'
import { lab, replace, type Lab } from './broker-lab.ts'
import { at } from './candidates.ts'

const CALL_MS = 60_000
const HEDGE_MS = 100

/** Limits on silence do not keep a process alive; here they must. */
const alive = setInterval(() => {}, 1000)
test.after.always(() => clearInterval(alive))

/** Ids of tickets that agents granted and did not get back. */
function outstanding(one: Lab): Set<string> {
  const out = new Set<string>()
  one.agents.forEach(({ principal }, index) => {
    const before = one.handlers.get(principal)
    if (before === undefined) return
    replace(one, index, {
      async getTickets(params, call) {
        const result = await before.getTickets(params, call)
        for (const { chain } of result.grants) {
          const last = chain?.at(-1)
          if (last !== undefined) out.add(ticketObject.open(last).id)
        }
        return result
      },
      async releaseTickets({ tickets }) {
        for (const id of tickets) out.delete(id)
        return {}
      }
    })
  })
  return out
}

/** Puts what nodes say of themselves into their adverts. */
function say(one: Lab, changes: (index: number) => Parameters<typeof nodeAdvert>[1]): void {
  one.nodes.forEach((key, index) => {
    const agents = one.agents.map(({ principal }) => principal)
    one.adverts[index] = nodeAdvert(key, { name: `n${index}`, agents, seq: 100 + index, ...changes(index) })
  })
}

function searchFor(
  one: Lab,
  count: number,
  placement: PlacementWish,
  changes: Partial<TicketSearch> = {}
): TicketSearch {
  return {
    ...one.search(count),
    nodes: one.adverts.map(({ body }) => body),
    placement: compilePlacement(placement),
    ...changes
  }
}

const nameOf = (one: Lab, node: string): string =>
  one.adverts.find(({ body }) => body.issuer === node)?.body.name ?? ''

async function until(holds: () => boolean): Promise<void> {
  for (let times = 0; times < 400 && !holds(); times++) await delay(5)
}

test('what is planned is what tickets are gotten for', async (t) => {
  const one = await lab(6, 2)
  say(one, (index) => ({ attributes: { site: `s${index % 3}`, racks: index } }))
  const placement = { distinct: ['site'], rank: 'node.racks' }
  const want = {
    minimum: 3,
    count: 3,
    resources: amounts(1),
    ports: [],
    rights: [],
    durationMs: HOUR,
    ...placement
  }
  const plan = await one.broker.plan(want)
  t.true(plan.satisfiable)
  t.deepEqual(
    plan.members.map(({ name, rank }) => `${name} ${rank}`),
    ['n5 5', 'n4 4', 'n3 3']
  )
  t.deepEqual(
    plan.rejections.map(({ name, failed }) => [name, failed[0]?.clause, failed[0]?.value]),
    [0, 1, 2].map((index) => [`n${index}`, 'distinct: site', `"s${index}", which member n${index + 3} has`])
  )
  const holdings = await one.broker.getTickets(searchFor(one, 3, placement))
  t.deepEqual(
    holdings.map(({ node, agent }) => `${node} ${agent}`).toSorted(),
    plan.members.map(({ node, agent }) => `${node} ${agent}`).toSorted()
  )
})

test('where a node is refused, another takes its place that goes with those in hand, and nothing else is held', async (t) => {
  const one = await lab(6, 1)
  say(one, (index) => ({ attributes: { site: `s${index % 3}`, racks: index } }))
  const out = outstanding(one)
  const failed = new FailedPairs()
  const [n5, agent] = [one.nodes[5]?.principal ?? '', one.agents[0]?.principal ?? '']
  failed.addPair({ node: n5, agent }, { code: 'OVERBOOKED' } as never)
  const placement = { distinct: ['site'], rank: 'node.racks' }
  const holdings = await one.broker.getTickets(searchFor(one, 3, placement, { failed }))
  t.deepEqual(holdings.map(({ node }) => nameOf(one, node)).toSorted(), ['n2', 'n3', 'n4'])
  t.is(out.size, 3)
  const [held] = one.adverts
  const more = await one.broker.getTickets(
    searchFor(one, 5, { distinct: ['site'] }, { held: held === undefined ? [] : [held.body] })
  )
  t.deepEqual(
    more.map(({ node }) => Number(nameOf(one, node).slice(1)) % 3).toSorted((a, b) => a - b),
    [1, 2]
  )
})

test('beside an agent that is slow the next is asked, and what the slow one grants too late is given back', async (t) => {
  const one = await lab(3, 2, CALL_MS, HEDGE_MS)
  const out = outstanding(one)
  const slow = one.handlers.get(one.agents[0]?.principal ?? '')
  const answer = Promise.withResolvers<void>()
  replace(one, 0, {
    async getTickets(params, call) {
      await answer.promise
      return slow!.getTickets(params, call)
    }
  })
  const holdings = await one.broker.getTickets(one.search(3))
  t.is(holdings.length, 3)
  t.true(holdings.every(({ agent }) => agent === one.agents[1]?.principal))
  t.is(out.size, 3)
  answer.resolve()
  await until(() => one.calls.includes('releaseTickets'))
  t.true(one.calls.includes('releaseTickets'))
  t.deepEqual(out, new Set(holdings.map(({ ticket }) => ticket.id)))
})

test('what a slow agent grants while it is still needed is taken, and what was asked for instead is given back', async (t) => {
  const one = await lab(1, 2, CALL_MS, HEDGE_MS)
  const out = outstanding(one)
  const [slow, next] = one.agents.map(({ principal }) => one.handlers.get(principal))
  const answers = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const asked: number[] = []
  ;[slow, next].forEach((handlers, index) =>
    replace(one, index, {
      async getTickets(params, call) {
        asked.push(index)
        await answers[index]?.promise
        return handlers!.getTickets(params, call)
      }
    })
  )
  const gathering = one.broker.getTickets(one.search(1))
  await until(() => asked.length === 2)
  answers[asked[0] ?? 0]?.resolve()
  const [holding] = await gathering
  t.is(holding?.agent, one.agents[asked[0] ?? 0]?.principal)
  answers[asked[1] ?? 0]?.resolve()
  await until(() => out.size === 1 && one.calls.includes('releaseTickets'))
  t.deepEqual([...out], [holding?.ticket.id])
})

test('an agent that is slow to tell what it holds is waited for only where it is needed', async (t) => {
  const one = await lab(2, 2, CALL_MS, HEDGE_MS)
  const handlers = one.handlers.get(one.agents[0]?.principal ?? '')
  const answer = Promise.withResolvers<void>()
  replace(one, 0, {
    async getAds(params, call) {
      await answer.promise
      return handlers!.getAds(params, call)
    }
  })
  t.is((await one.broker.getTickets(one.search(2))).length, 2)
  // Of one node only the slow one has anything.
  const [first, second] = one.adverts
  if (first === undefined || second === undefined) return t.fail()
  one.adverts[1] = nodeAdvert(one.nodes[1]!, { ...second.body, agents: [one.agents[0]!.principal] })
  const other = one.handlers.get(one.agents[1]?.principal ?? '')
  replace(one, 1, {
    getAds: async (params, call) =>
      other!.getAds(params, {
        ...call,
        emit: async (item) => {
          if (item.available && Buffer.from(item.advert).equals(Buffer.from(first.bytes)))
            await call.emit(item)
        }
      })
  })
  const gathering = one.broker.getTickets(searchFor(one, 2, {}))
  await delay(2 * HEDGE_MS)
  answer.resolve()
  return t.is((await gathering).length, 2)
})

test('whoever gives up holds nothing: neither what was granted nor what is granted after', async (t) => {
  const one = await lab(2, 2, CALL_MS, 60_000)
  const out = outstanding(one)
  const slow = one.handlers.get(one.agents[0]?.principal ?? '')
  const answer = Promise.withResolvers<void>()
  replace(one, 0, {
    async getTickets(params, call) {
      await answer.promise
      return slow!.getTickets(params, call)
    }
  })
  const controller = new AbortController()
  const gathering = one.broker.getTickets(one.search(2), { signal: controller.signal })
  await until(() => out.size === 1)
  controller.abort(new Error('enough'))
  await t.throwsAsync(gathering, { message: 'enough' })
  t.is(out.size, 0)
  answer.resolve()
  await until(() => one.calls.filter((call) => call === 'releaseTickets').length === 2)
  t.is(out.size, 0)
  t.is(one.calls.filter((call) => call === 'releaseTickets').length, 2)
})

test('when nothing goes with the tickets in hand and others make the slice, those are given back', async (t) => {
  const one = await lab(6, 1)
  // Two places of three nodes each; the first is preferred.
  say(one, (index) => ({
    coordinate: at(index < 3 ? index : 500 + index),
    free: amounts(index < 3 ? 8 : 4)
  }))
  const out = outstanding(one)
  const agent = one.handlers.get(one.agents[0]?.principal ?? '')
  const refused = one.nodes[2]?.principal
  replace(one, 0, {
    async getTickets(params, call) {
      const requests = params.requests.filter(({ node }) => node !== refused)
      const { grants } =
        requests.length === 0 ? { grants: [] } : await agent!.getTickets({ ...params, requests }, call)
      const byNode = new Map(grants.map((grant) => [grant.node, grant]))
      return { grants: params.requests.map(({ node }) => byNode.get(node) ?? { node }) }
    }
  })
  const holdings = await one.broker.getTickets(searchFor(one, 3, { pairwise: 'rtt_ms < 80' }, { minimum: 3 }))
  t.deepEqual(holdings.map(({ node }) => nameOf(one, node)).toSorted(), ['n3', 'n4', 'n5'])
  await until(() => out.size === 3)
  t.deepEqual(out, new Set(holdings.map(({ ticket }) => ticket.id)))
})

test('for a slice that cannot be had no ticket is asked for, and a plan says why', async (t) => {
  const one = await lab(4, 1)
  say(one, (index) => ({
    attributes: { site: `s${index % 2}` },
    ...(index < 2 ? { coordinate: at(300 * index) } : {})
  }))
  const placement = { distinct: ['site'] }
  t.deepEqual(await one.broker.getTickets(searchFor(one, 3, placement, { minimum: 3 })), [])
  t.false(one.calls.includes('getTickets'))
  const want = { minimum: 3, count: 3, resources: amounts(1), ports: [], rights: [], durationMs: HOUR }
  t.like(await one.broker.plan({ ...want, ...placement }), {
    satisfiable: false,
    reason: 'the nodes that match have 2 values of site where 3 of 3 members are needed'
  })
  const near = await one.broker.plan({ ...want, pairwise: 'rtt_ms < 80' })
  t.is(
    near.reason,
    'at most 1 of the nodes that match can be members together where 3 of 3 members are needed'
  )
  const [member] = near.members
  t.is(near.rejections.length, 3)
  for (const { failed } of near.rejections) {
    t.like(failed[0], { clause: 'pairwise: rtt_ms < 80' })
    t.regex(failed[0]?.value ?? '', new RegExp(`^(300|not known) with member ${member?.name}$`))
  }
  const dear = await one.broker.plan({ ...want, resources: amounts(10_000) })
  t.regex(dear.reason ?? '', /^0 of 4 nodes match where 3 of 3 members are needed$/)
  const long = await one.broker.plan({ ...want, durationMs: 1000 * HOUR })
  t.regex(long.reason ?? '', /^agents offer enough of 0 of the 4 nodes that match/)
  t.regex(long.rejections[0]?.failed[0]?.clause ?? '', /^an agent offers it until /)
})

test('an explanation of a want is of every node, members and those not needed included', async (t) => {
  const one = await lab(4, 1)
  say(one, (index) => ({
    attributes: index === 3 ? {} : { site: `s${Math.min(index, 1)}` },
    ...(index === 0 ? { accepts: { principals: [], organisations: [] } } : {})
  }))
  const explained = await one.broker.explain({
    want: {
      count: 1,
      minimum: 1,
      query: 'node.name != "n9" && node.name != "n0"',
      distinct: ['site'],
      resources: amounts(1),
      ports: [],
      rights: ['raw-socket'],
      durationMs: HOUR,
      image: 'plan9'
    }
  })
  t.deepEqual(
    explained.map(({ name, matches, failed }) => [
      name,
      matches,
      failed.map(({ clause }) => clause.split(' 12D3')[0])
    ]),
    [
      ['n0', false, ['node.name != "n0"', 'accepts', 'right raw-socket', 'image plan9']],
      ['n1', false, ['right raw-socket', 'image plan9']],
      ['n2', false, ['right raw-socket', 'image plan9']],
      ['n3', false, ['right raw-socket', 'distinct: site', 'image plan9']]
    ]
  )
})

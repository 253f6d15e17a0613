import test from 'ava'
import type { Holding } from '../../src/broker/grant.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import { HOUR, NOW, amounts, delegate, issue, makeKey } from '../ticket/fixtures.ts'
import { vouch } from '../ticket/memberships.ts'
import { lab, replace } from './broker-lab.ts'

const never = async (): Promise<never> => new Promise(() => {})

/** Limits on silence do not keep a process alive; here they must. */
const alive = setInterval(() => {}, 1000)
test.after.always(() => clearInterval(alive))

const nodesOf = (holdings: readonly Holding[]): Set<string> => new Set(holdings.map(({ node }) => node))

test('nodes that match are found, and for the others why they do not', async (t) => {
  const one = await lab(3, 1)
  const { found, mismatches } = await one.broker.find('node.name != "n1"')
  t.deepEqual(
    found.map(({ advert }) => advert.body.name),
    ['n0', 'n2']
  )
  t.deepEqual(mismatches, [
    { node: one.nodes[1]?.principal, name: 'n1', failed: [{ clause: 'node.name != "n1"', value: '"n1"' }] }
  ])
  t.is((await one.broker.find(undefined)).found.length, 3)
  await t.throwsAsync(one.broker.find('node.'), { code: 'QUERY_INVALID' })
})

test('tickets come from several agents, for different nodes, as asked for', async (t) => {
  const one = await lab(4, 2)
  const holdings = await one.broker.getTickets(one.search(4, { ports: [{ protocol: 'tcp' }] }))
  t.is(nodesOf(holdings).size, 4)
  t.is(holdings.filter(({ agent }) => agent === one.agents[0]?.principal).length, 2)
  for (const { ticket } of holdings) {
    t.like(ticket.body, { holder: one.holder.principal, slice: 'mesh', resources: amounts(1) })
    t.is(ticket.body.ports.length, 1)
  }
})

test('fewer tickets than asked for come with the last reason', async (t) => {
  const one = await lab(2, 1)
  const search = one.search(3, { ports: [{ protocol: 'tcp', port: 99 }] })
  t.deepEqual(await one.broker.getTickets(search), [])
  t.is(search.failed.last?.code, 'PORT_TAKEN')
})

test('when an agent refuses, the next one is asked', async (t) => {
  const one = await lab(3, 2)
  replace(one, 0, {
    getTickets: async () => {
      throw new Error('out of order')
    }
  })
  const holdings = await one.broker.getTickets(one.search(3))
  t.is(holdings.length, 3)
  t.true(holdings.every(({ agent }) => agent === one.agents[1]?.principal))
})

test('when no agent grants a node, another node takes its place', async (t) => {
  const one = await lab(3, 1)
  const first = (await one.broker.getTickets(one.search(1)))[0]?.node ?? ''
  const search = one.search(2)
  search.failed.addNode(first, { code: 'OVERBOOKED' } as never)
  const holdings = await one.broker.getTickets(search)
  t.is(holdings.length, 2)
  t.false(nodesOf(holdings).has(first))
})

test.serial('an agent that never answers costs one wait, and its nodes are had from others', async (t) => {
  for (const method of ['getAds', 'getTickets'] as const) {
    const one = await lab(3, 2, 3000)
    replace(one, 0, { [method]: never })
    const holdings = await one.broker.getTickets(one.search(3))
    t.is(holdings.length, 3, method)
    t.is(one.calls.filter((call) => call === 'getTickets').length, method === 'getAds' ? 1 : 3, method)
  }
})

test('a caller who gives up is not kept waiting, and nothing goes on', async (t) => {
  const one = await lab(2, 1)
  const controller = new AbortController()
  replace(one, 0, {
    getTickets: async () => {
      controller.abort(new Error('enough'))
      return never()
    }
  })
  const asking = one.broker.getTickets(one.search(2), { signal: controller.signal })
  await t.throwsAsync(asking, { message: 'enough' })
})

test('more tickets than one message takes are asked for and given back in several', async (t) => {
  const one = await lab(40, 1)
  const holdings = await one.broker.getTickets(one.search(40))
  t.is(nodesOf(holdings).size, 40)
  t.is(one.calls.filter((call) => call === 'getTickets').length, 2)
  await one.broker.release(holdings)
  t.is(one.calls.filter((call) => call === 'releaseTickets').length, 2)
})

test('an agent that repeats itself is heard once', async (t) => {
  const one = await lab(1, 1)
  const agent = one.handlers.get(one.agents[0]?.principal ?? '')
  replace(one, 0, {
    getAds: async (params, call) => {
      for (let times = 0; times < 50; times++) await agent?.getAds(params, call)
      return { ratings: [] }
    }
  })
  t.is((await one.broker.getTickets(one.search(1))).length, 1)
})

test('of the agents that adverts name no more than a bound are asked', async (t) => {
  const one = await lab(2, 1)
  const names = Array.from({ length: 160 }, () => makeKey().principal)
  const nodes = one.adverts.map(({ body }) => body)
  const crowd = Array.from({ length: 5 }, (_one, index) => ({
    ...(nodes[0] as NodeAdvertisement),
    issuer: names[index] ?? '',
    agents: names.slice(32 * index, 32 * index + 32)
  }))
  const holdings = await one.broker.getTickets({ ...one.search(2), nodes: [...nodes, ...crowd] })
  t.is(holdings.length, 2, 'the agent that most nodes name is among them')
  t.is(one.calls.filter((call) => call === 'getAds').length, 64)
})

const forged: Readonly<Record<string, () => Partial<Ticket>>> = {
  'for another holder': () => ({ holder: makeKey().principal }),
  'for another slice': () => ({ slice: 'other' }),
  'with less than was asked for': () => ({ resources: { ...amounts(1), memoryBytes: 1 } }),
  'for a shorter term': () => ({ notAfter: NOW + HOUR / 2 }),
  'without the port': () => ({ ports: [] }),
  'with more than the agent has': () => ({ resources: amounts(11) })
}
for (const [name, forge] of Object.entries({ ...forged, 'that is good': () => ({}) })) {
  test(`a ticket ${name} is ${name === 'that is good' ? 'taken' : 'not taken'}`, async (t) => {
    const one = await lab(1, 1)
    const [[node, agent]] = [[one.nodes[0], one.agents[0]]]
    if (node === undefined || agent === undefined) return t.fail()
    const delegation = delegate(node, agent)
    const ticket = issue(delegation, agent, one.holder, {
      notBefore: NOW - 60_000,
      ...forge()
    })
    replace(one, 0, {
      getTickets: async () => ({
        grants: [{ node: node.principal, chain: [delegation.bytes, ticket.bytes] }]
      })
    })
    const search = one.search(1, { ports: [{ protocol: 'tcp', port: 20_000 }] })
    const holdings = await one.broker.getTickets(search)
    t.is(holdings.length, name === 'that is good' ? 1 : 0)
    return t.is(search.failed.last?.code, name === 'that is good' ? undefined : 'PROTOCOL_ERROR')
  })
}

test.serial('giving tickets back to an agent that does not answer is given up quietly', async (t) => {
  const one = await lab(1, 1, 3000)
  const holdings = await one.broker.getTickets(one.search(1))
  replace(one, 0, { releaseTickets: never })
  await t.notThrowsAsync(one.broker.release(holdings))
})

test('a plan names members and agents without a ticket, and a want that cannot be had is no error', async (t) => {
  const one = await lab(3, 2)
  const want = { count: 2, minimum: 2, resources: amounts(1), ports: [], rights: [], durationMs: HOUR }
  const plan = await one.broker.plan({ ...want, query: 'node.name != "n1"' })
  t.true(plan.satisfiable)
  t.deepEqual(plan.members.map(({ name }) => name).toSorted(), ['n0', 'n2'])
  t.deepEqual(plan.rejections, [
    {
      node: one.nodes[1]?.principal ?? '',
      name: 'n1',
      failed: [{ clause: 'node.name != "n1"', value: '"n1"' }]
    }
  ])
  t.false((await one.broker.plan({ ...want, count: 4, minimum: 4 })).satisfiable)
  t.false(one.calls.includes('getTickets'))
})

test('whoever vouches for the holder is shown with every request for tickets', async (t) => {
  const one = await lab(1, 1)
  const seen: unknown[] = []
  const granting = one.handlers.get(one.agents[0]?.principal ?? '')
  replace(one, 0, {
    getTickets: async (params, call) => {
      seen.push(params.memberships)
      return granting!.getTickets(params, call)
    }
  })
  const [holding] = await one.broker.getTickets(one.search(1))
  one.shown.push(vouch(makeKey(), one.holder.principal).bytes)
  await one.broker.renewTicket({ ...holding!, durationMs: HOUR })
  t.deepEqual(seen, [undefined, one.shown])
})

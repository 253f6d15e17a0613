import test from 'ava'
import type { SlicenetError } from '../../src/base/errors.ts'
import { silentLogger } from '../../src/base/log.ts'
import { Broker } from '../../src/broker/broker.ts'
import { createControlClient, findNodes } from '../../src/daemon/control-client.ts'
import type { ExplanationView, PlannedMemberView } from '../../src/daemon/control-protocol.ts'
import { discoveryHandlers } from '../../src/daemon/discovery-handlers.ts'
import { OtherBrokers } from '../../src/daemon/other-brokers.ts'
import { advertKey, AdvertTable } from '../../src/peer/advert-table.ts'
import type { Rejection, Want } from '../../src/protocol/broker-protocol.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { nodeAdvert } from '../broker/adverts.ts'
import { lab, replace } from '../broker/broker-lab.ts'
import { amounts, makeKey, NOW } from '../ticket/fixtures.ts'
import { serveControl } from './control-fixture.ts'

const nobody = new OtherBrokers(
  {
    host: {
      principal: makeKey().principal,
      caller: () => async () => Promise.reject(new Error('nobody'))
    } as never,
    directory: { findBrokers: async () => [], learn: () => {} },
    clock: new ManualClock(),
    logger: silentLogger
  },
  { brokers: [] }
)

function parts() {
  const clock = new ManualClock()
  const table = new AdvertTable({ clock })
  const directory = {
    entries: () => table.entries(),
    get: (node: string) => table.get(advertKey(node, 'node')),
    on: table.on.bind(table),
    refresh: async () => 0
  }
  const proven = new Set<string>()
  const broker = new Broker({
    principal: makeKey().principal,
    directory,
    clock,
    logger: silentLogger,
    callAgent: () => async () => {
      throw new Error('no agent here')
    },
    isProven: (principal) => proven.has(principal)
  })
  return { clock, table, directory: directory as never, broker, proven, otherBrokers: nobody }
}

test('a found node comes with how old the news of it is, and what is known of it', async (t) => {
  const one = parts()
  const key = makeKey()
  const advert = nodeAdvert(key, { notAfter: NOW + 600_000, rights: ['raw-socket'] })
  one.table.offer(advert.bytes, 'pull')
  await one.clock.advance(7000)
  await using control = await serveControl(discoveryHandlers(() => one))
  const call = createControlClient(control)
  const [node] = await findNodes(call, undefined)
  t.like(node, { id: key.principal, via: 'pull', receivedAt: NOW, ageMs: 7000, rights: ['raw-socket'] })
  t.is(node?.reliability, undefined)
  one.proven.add(key.principal)
  t.is((await findNodes(call, undefined))[0]?.reliability, 0)
})

test('discovery streams what begins to match, and ends when the caller leaves', async (t) => {
  const one = parts()
  const key = makeKey()
  one.table.offer(nodeAdvert(key, { notAfter: NOW + 600_000 }).bytes, 'gossip')
  await using control = await serveControl(discoveryHandlers(() => one))
  const call = createControlClient(control)
  const controller = new AbortController()
  const seen: string[] = []
  const watching = call(
    'discover',
    { query: 'node.region == "eu"' },
    {
      signal: controller.signal,
      onItem({ event, node }) {
        seen.push(`${event} ${node.name}`)
        if (seen.length === 1)
          one.table.offer(nodeAdvert(makeKey(), { notAfter: NOW + 600_000, name: 'two' }).bytes, 'gossip')
        else controller.abort(new Error('enough'))
      }
    }
  )
  await t.throwsAsync(watching, { message: 'enough' })
  t.deepEqual(seen, ['match one', 'match two'])
  await t.throwsAsync(call('discover', { query: 'node.' }), { code: 'QUERY_INVALID' })
})

test('where none of very many nodes matches some are named, and how to see all', async (t) => {
  const one = parts()
  for (let index = 0; index < 120; index++) {
    one.table.offer(nodeAdvert(makeKey(), { notAfter: NOW + 600_000, name: `n${index}` }).bytes, 'gossip')
  }
  await using control = await serveControl(discoveryHandlers(() => one))
  const call = createControlClient(control)
  const error = await t.throwsAsync<SlicenetError>(call('find', { query: 'node.region == "mars"' }), {
    code: 'NO_MATCH',
    message: 'none of 120 nodes matches'
  })
  const { nodes } = error.details as { nodes: unknown[] }
  t.is(nodes.length, 100)
  t.regex(error.hint, /slicenet explain/)
  const explained: ExplanationView[] = []
  await call('explain', { query: 'node.region == "mars"' }, { onItem: (node) => void explained.push(node) })
  t.is(explained.length, 120)
  t.deepEqual(explained[0]?.failed, [{ clause: 'node.region == "mars"', value: '"eu"' }])
})

test('a query of a megabyte, and one of great depth, are refused as queries', async (t) => {
  const one = parts()
  await using control = await serveControl(discoveryHandlers(() => one))
  const call = createControlClient(control)
  for (const query of ['x'.repeat(1024 * 1024), '('.repeat(10_000), `${'!'.repeat(4000)}true`]) {
    await t.throwsAsync(call('find', { query }), { code: 'QUERY_INVALID' })
    await t.throwsAsync(call('explain', { query }), { code: 'QUERY_INVALID' })
    await t.throwsAsync(call('discover', { query }), { code: 'QUERY_INVALID' })
  }
})

/** Real agents, and a directory of their nodes' adverts. */
async function labParts(nodes: number, agents: number) {
  const one = await lab(nodes, agents)
  const clock = new ManualClock()
  const table = new AdvertTable({ clock })
  for (const { bytes } of one.adverts) table.offer(bytes, 'gossip')
  const directory = { get: (node: string, role: 'node' | 'agent') => table.get(advertKey(node, role)) }
  return { one, parts: { clock, broker: one.broker, directory: directory as never, otherBrokers: nobody } }
}

const want = (changes: Partial<Want> = {}): Want => ({
  count: 2,
  minimum: 2,
  resources: amounts(1),
  ports: [],
  rights: [],
  durationMs: 60_000,
  ...changes
})

test('a plan names members and the others with reasons, and no ticket is issued for it', async (t) => {
  const { one, parts } = await labParts(3, 1)
  await using control = await serveControl(discoveryHandlers(() => parts))
  const call = createControlClient(control)
  const members: PlannedMemberView[] = []
  const rejections: Rejection[] = []
  const onItem = (item: { member?: PlannedMemberView; rejection?: Rejection }): void => {
    if (item.member !== undefined) members.push(item.member)
    if (item.rejection !== undefined) rejections.push(item.rejection)
  }
  const query = 'node.name != "n0"'
  const result = await call('plan', { want: want({ query }) }, { onItem })
  t.deepEqual(result, { satisfiable: true })
  t.deepEqual(members.map(({ name }) => name).sort(), ['n1', 'n2'])
  t.true(members.every(({ agent }) => agent === one.agents[0]?.principal))
  t.deepEqual(rejections, [
    { node: one.nodes[0]?.principal ?? '', name: 'n0', failed: [{ clause: query, value: '"n0"' }] }
  ])
  t.deepEqual(one.calls, ['getAds'])
  const book = one.agentBooks[0]
  t.deepEqual(book?.tickets(), [])
  // The control: a slice that is made shows in the same book.
  await one.broker.getTickets(one.search(1))
  t.is(book?.tickets().length, 1)
})

test('a plan that cannot be had says why', async (t) => {
  const { parts } = await labParts(2, 1)
  await using control = await serveControl(discoveryHandlers(() => parts))
  const result = await createControlClient(control)('plan', { want: want({ count: 5, minimum: 3 }) })
  t.false(result.satisfiable)
  t.is(typeof result.reason, 'string')
})

test('a plan by the broker of another needs one', async (t) => {
  const { parts } = await labParts(1, 1)
  await using control = await serveControl(discoveryHandlers(() => parts))
  const asked = createControlClient(control)('plan', { want: want(), broker: 'any' })
  await t.throwsAsync(asked, { code: 'NOT_FOUND' })
})

test('a node that no agent offers is explained, and only where a slice is asked about', async (t) => {
  const { one, parts } = await labParts(2, 1)
  replace(one, 0, { getAds: async () => ({ ratings: [] }) })
  await using control = await serveControl(discoveryHandlers(() => parts))
  const call = createControlClient(control)
  const explained = async (params: Parameters<typeof call<'explain'>>[1]): Promise<ExplanationView[]> => {
    const nodes: ExplanationView[] = []
    await call('explain', params, { onItem: (node) => void nodes.push(node) })
    return nodes
  }
  t.deepEqual(
    (await explained({})).map(({ name, matches }) => `${name} ${matches}`),
    ['n0 true', 'n1 true']
  )
  const ofSlice = await explained({ want: want({ query: 'node.name == "n1"' }) })
  t.deepEqual(
    ofSlice.map(({ matches }) => matches),
    [false, false]
  )
  t.deepEqual(ofSlice[0]?.failed, [{ clause: 'node.name == "n1"', value: '"n0"' }])
  t.regex(ofSlice[1]?.failed[0]?.clause ?? '', /agent/)
})

import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import { ResourceMonitor, type Measured, type ResourceMonitorInit } from '../../src/node/resource-monitor.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import { settle } from '../base/manual-clock.ts'
import { amounts, delegate, issue, makeKey } from '../ticket/fixtures.ts'
import { vouch } from '../ticket/memberships.ts'
import { deleteLease, CAPACITY, leaseOf, nodeLab, redeem, type NodeLab } from './node-lab.ts'

const agent = makeKey()
const holder = makeKey()

function monitorOf(
  lab: NodeLab,
  adverts: NodeAdvertisement[],
  {
    shown = [],
    measured = () => ({}),
    ...init
  }: Partial<ResourceMonitorInit> & {
    readonly shown?: readonly Uint8Array[]
    readonly measured?: () => Measured
  } = {}
): ResourceMonitor {
  return new ResourceMonitor(
    {
      key: lab.key,
      manager: lab.manager,
      clock: lab.clock,
      logger: silentLogger,
      images: async () => ({ debian: `sha256:${'ab'.repeat(32)}` }),
      agents: () => [agent.principal],
      delegatedPercent: () => 100,
      multiaddrs: () => [],
      memberships: () => shown,
      measured,
      publish: async ({ body }) => void (body.role === 'node' && adverts.push(body))
    },
    {
      name: 'one',
      epoch: 1,
      capacity: CAPACITY,
      attributes: { region: 'eu' },
      intervalMs: 60_000,
      lifetimeMs: 180_000,
      ...init
    }
  )
}

test('adverts say whom the node leases to and which rights it delegates, where it has a say in that', async (t) => {
  const lab = await nodeLab()
  const adverts: NodeAdvertisement[] = []
  const accepts = { principals: [holder.principal], organisations: [agent.principal] }
  for (const init of [{}, { accepts, rights: ['raw-socket' as const] }]) {
    const monitor = monitorOf(lab, adverts, init)
    await monitor.start()
    await lab.clock.advance(0)
    await monitor.stop()
  }
  const [plain, , choosy] = adverts
  t.false(plain === undefined || 'accepts' in plain || 'rights' in plain)
  t.like(choosy, { accepts, rights: ['raw-socket'] })
})

test('what is measured is in the adverts as soon as there is something, and makes none by itself', async (t) => {
  const lab = await nodeLab()
  const adverts: NodeAdvertisement[] = []
  const coordinate = { vector: [1, -2, 3, 0], height: 500, error: 200 }
  let measured: Measured = {}
  const monitor = monitorOf(lab, adverts, { measured: () => measured })
  await monitor.start()
  await lab.clock.advance(0)
  measured = { coordinate, attributes: { uplinkBps: 20_000_000 } }
  await lab.clock.advance(59_999)
  t.is(adverts.length, 1)
  t.false('coordinate' in (adverts[0] ?? {}))
  await lab.clock.advance(1)
  t.like(adverts[1], { coordinate, attributes: { region: 'eu', uplinkBps: 20_000_000 } })
  await monitor.stop()
})

test('adverts say what is free: now and then, and soon after a change', async (t) => {
  const lab = await nodeLab()
  const adverts: NodeAdvertisement[] = []
  const shown: Uint8Array[] = []
  const monitor = monitorOf(lab, adverts, { shown })
  const free = (): (number | undefined)[] => adverts.map((advert) => advert.free.memoryBytes)
  const ten = amounts(10).memoryBytes
  const nine = amounts(9).memoryBytes
  await monitor.start()
  await lab.clock.advance(60_000)
  t.deepEqual(free(), [ten, ten])
  const delegation = delegate(lab.key, agent)
  const presented = { delegation, tickets: [issue(delegation, agent, holder)], holder }
  const lease = leaseOf(await redeem(lab, presented))
  leaseOf(await redeem(lab, presented))
  await lab.clock.advance(250)
  t.deepEqual(free(), [ten, ten, nine], 'two changes, one advert')
  t.true(adverts.every(({ seq }, index) => seq > (adverts[index - 1]?.seq ?? 0)))
  await deleteLease(lab, lease, holder)
  await monitor.stop()
  await lab.clock.advance(120_000)
  t.deepEqual(
    adverts.map(({ leaving }) => leaving),
    [undefined, undefined, undefined, true],
    'a monitor that stops says so, and is silent'
  )
  shown.push(vouch(agent, lab.key.principal).bytes)
  await monitor.start()
  await settle()
  monitor.reportSoon()
  await lab.clock.advance(250)
  t.deepEqual(free().slice(4), [ten, ten], 'and goes on when started again')
  t.deepEqual(
    adverts.map(({ memberships }) => memberships),
    [...Array.from({ length: 4 }, () => undefined), shown, shown],
    'whoever vouches for the node is named'
  )
  await monitor.stop()
})

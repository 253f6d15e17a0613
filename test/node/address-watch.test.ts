import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import { AddressWatch } from '../../src/node/address-watch.ts'
import { ResourceMonitor } from '../../src/node/resource-monitor.ts'
import { SignerRate } from '../../src/peer/signer-rate.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import { CAPACITY, nodeLab, type NodeLab } from './node-lab.ts'

/** A node that advertises every minute, with a list of what it said and when. */
interface Node {
  readonly lab: NodeLab
  readonly adverts: NodeAdvertisement[]
  readonly saidAt: number[]
  readonly watch: AddressWatch
  addresses: readonly string[]
  address6: string | undefined
  stop(): Promise<void>
}

async function startNode(isWatched = true): Promise<Node> {
  const lab = await nodeLab()
  const { clock } = lab
  const addressAttributes = (): Record<string, string> =>
    node.address6 === undefined ? {} : { address6: node.address6 }
  const monitor = new ResourceMonitor(
    {
      key: lab.key,
      manager: lab.manager,
      clock,
      logger: silentLogger,
      images: async () => Promise.resolve({}),
      agents: () => [],
      delegatedPercent: () => 100,
      multiaddrs: () => node.addresses,
      addressAttributes,
      publish: async ({ body }) => {
        if (body.role === 'node') node.adverts.push(body)
        node.saidAt.push(clock.monotonic())
        return Promise.resolve()
      }
    },
    {
      name: 'one',
      epoch: 1,
      capacity: CAPACITY,
      attributes: { region: 'eu' },
      intervalMs: 60_000,
      lifetimeMs: 180_000
    }
  )
  const watch = new AddressWatch({
    clock,
    logger: silentLogger,
    addresses: () => [...node.addresses, ...Object.values(addressAttributes())],
    report: () => monitor.reportSoon()
  })
  const stop = async (): Promise<void> => {
    await watch.stop()
    await monitor.stop()
  }
  const node: Node = {
    lab,
    adverts: [],
    saidAt: [],
    watch,
    addresses: ['/ip4/192.0.2.7/tcp/4001'],
    address6: undefined,
    stop
  }
  await monitor.start()
  if (isWatched) await watch.start()
  await clock.advance(0)
  return node
}

test('addresses that change are said anew at once, each time as they are then', async (t) => {
  const node = await startNode()
  const { lab, adverts } = node
  await lab.clock.advance(20_000)
  t.is(adverts.length, 1)
  node.address6 = '2001:db8::7'
  await lab.clock.advance(1250)
  t.deepEqual(adverts[1]?.attributes, { region: 'eu', address6: '2001:db8::7' })
  node.address6 = undefined
  node.addresses = ['/ip4/192.0.2.9/tcp/4001']
  await lab.clock.advance(1250)
  t.deepEqual(adverts[2]?.attributes, { region: 'eu' })
  t.deepEqual(adverts[2]?.multiaddrs, node.addresses)
  node.addresses = ['/ip4/192.0.2.10/tcp/4001', ...node.addresses]
  await lab.clock.advance(1250)
  t.is(adverts.length, 4)
  node.addresses = [...node.addresses].reverse()
  await lab.clock.advance(10_000)
  t.is(adverts.length, 4, 'their order is none of its business')
  await node.stop()
})

test('without the watch they wait for the next advert', async (t) => {
  const node = await startNode(false)
  node.address6 = '2001:db8::7'
  await node.lab.clock.advance(59_999)
  t.is(node.adverts.length, 1)
  await node.lab.clock.advance(1)
  t.is(node.adverts[1]?.attributes.address6, '2001:db8::7')
  await node.stop()
})

test('addresses that change all the time are said no more often than others take it', async (t) => {
  const node = await startNode()
  const { lab, adverts, saidAt } = node
  for (let second = 0; second < 600; second++) {
    node.addresses = [`/ip4/192.0.2.${second % 250}/tcp/4001`]
    await lab.clock.advance(1000)
  }
  // As a directory judges whoever signs them.
  const taken = new SignerRate()
  t.true(saidAt.every((at) => taken.take(at)))
  t.true(adverts.length > 100, `${adverts.length}`)
  const [last] = node.addresses
  await lab.clock.advance(5250)
  t.deepEqual(adverts.at(-1)?.multiaddrs, [last], 'the last word is said')
  const all = new SignerRate()
  const eachSecond = Array.from({ length: 600 }, (_, second) => all.take(second * 1000))
  t.true(eachSecond.includes(false), 'one each second would be too many')
  await node.stop()
})

test('a watch that is stopped has nothing said', async (t) => {
  const node = await startNode()
  await node.watch.stop()
  node.address6 = '2001:db8::7'
  await node.lab.clock.advance(10_000)
  t.is(node.adverts.length, 1)
  await node.stop()
})

import test from 'ava'
import { parseConfig, type NodeConfig } from '../../src/daemon/config.ts'
import {
  delegatedShaping,
  largestRootBps,
  leasableBps,
  shapingPolicy,
  uplinkInits
} from '../../src/daemon/shaping-config.ts'

const parse = (lines: readonly string[]): NodeConfig => {
  const { node } = parseConfig(['name: one', 'node:', '  agents: []', ...lines].join('\n'), 'file')
  if (node === undefined) throw new Error('no node')
  return node
}

test('a node bounds what may raise alarms, whether or not it is told how', (t) => {
  t.deepEqual(shapingPolicy(parse([])), {
    icmpBps: 128_000,
    optionsBps: 128_000,
    newDestinationsBps: 128_000,
    destinationsPerMinute: 600,
    egressShareMax: 1
  })
  const told = ['  shaping: { icmp: 64kbps, newDestinations: 1Mbps, destinationsPerMinute: 100 }']
  t.like(shapingPolicy(parse(told)), {
    icmpBps: 64_000,
    newDestinationsBps: 1_000_000,
    destinationsPerMinute: 100
  })
})

test('what a slow uplink is not told is no more than the uplink', (t) => {
  const slow = parse(['  uplink: { rate: 64kbps }'])
  t.is(slow.uplink[0]?.own, 64_000)
  t.is(shapingPolicy(slow).icmpBps, 64_000)
})

test('an agent may let slices have the largest share of its node, or what it is told', (t) => {
  const node = parse(['  shaping: { icmp: 64kbps, egressShare: 8 }'])
  t.is(shapingPolicy(node).egressShareMax, 8)
  t.deepEqual(delegatedShaping(undefined, node.shaping), { egressShare: 8 })
  t.is(delegatedShaping(undefined, {}), undefined)
  t.deepEqual(delegatedShaping({ icmp: 16_000, egressShare: 20 }, node.shaping), {
    icmpBps: 16_000,
    egressShare: 8
  })
  t.is(delegatedShaping({ egressShare: 1 }, node.shaping), undefined)
})

test('a node has one uplink or several, each a name or more', (t) => {
  const plain = { rate: 100_000_000, own: 10_000_000 }
  t.deepEqual(parse([]).uplink, [plain])
  t.deepEqual(parse(['  uplink: { device: eth0, rate: 1Gbps }']).uplink, [
    { device: 'eth0', rate: 1_000_000_000, own: 10_000_000 }
  ])
  t.deepEqual(parse(['  uplink: eth0']).uplink, [{ device: 'eth0', ...plain }])
  const node = parse([
    '  address: 192.0.2.7',
    '  uplink: [eth0, { device: eth1, address: 198.51.100.7, rate: 20Mbps, own: 5Mbps }]'
  ])
  t.deepEqual(uplinkInits(node), [
    { device: 'eth0', address: '192.0.2.7', address6: undefined, rootBps: 100_000_000, nodeBps: 10_000_000 },
    { device: 'eth1', address: '198.51.100.7', address6: undefined, rootBps: 20_000_000, nodeBps: 5_000_000 }
  ])
  // What is guaranteed must fit on each of them.
  t.is(leasableBps(node), 15_000_000)
  t.is(largestRootBps(node), 100_000_000)
})

for (const [title, line, field] of [
  ['a root of nothing', 'uplink: { rate: 0 }', 'node.uplink.rate'],
  ['a negative root', 'uplink: { rate: -1Mbps }', 'node.uplink.rate'],
  ['nothing for the node itself', 'uplink: { own: 0 }', 'node.uplink.own'],
  ['more for the node itself than there is', 'uplink: { rate: 1Mbps, own: 2Mbps }', 'node.uplink.own'],
  [
    'more for slices than there is',
    'uplink: { rate: 10Mbps, own: 2Mbps }\n  capacity: { egress: 9Mbps }',
    'node.capacity.egress'
  ],
  ['no uplink at all', 'uplink: []', 'node.uplink'],
  ['one device twice', 'uplink: [eth0, { device: eth0 }]', 'node.uplink: expected every device once'],
  ['two default routes', 'uplink: [{ rate: 1Mbps }, {}]', 'node.uplink: expected every device once'],
  [
    'one address twice',
    'uplink: [{ device: a, address: 192.0.2.7 }, { device: b, address: 192.0.2.7 }]',
    'node.uplink: expected every address once'
  ],
  [
    'the node’s address at another uplink than the first',
    'address: 192.0.2.7\n  uplink: [a, { device: b, address: 192.0.2.7 }]',
    'node.address'
  ],
  ['an address that is none', 'uplink: { address: 192.0.2.700 }', 'node.uplink.address'],
  ['a second uplink of nothing', 'uplink: [eth0, { device: eth1, rate: 0 }]', 'node.uplink.1.rate'],
  ['too many uplinks', `uplink: [${'abcdefghi'.split('').join(', ')}]`, 'node.uplink'],
  ['an uplink that is a number', 'uplink: 7', 'node.uplink'],
  [
    'more for slices than the smallest uplink has',
    'uplink: [eth0, { device: eth1, rate: 10Mbps, own: 2Mbps }]\n  capacity: { egress: 9Mbps }',
    'node.capacity.egress'
  ],
  ['a bucket of nothing', 'shaping: { icmp: 0kbps }', 'node.shaping.icmp'],
  ['a negative bucket', 'shaping: { options: -5kbps }', 'node.shaping.options'],
  ['a bucket above the root', 'shaping: { newDestinations: 101Mbps }', 'node.shaping.newDestinations'],
  ['no destinations', 'shaping: { destinationsPerMinute: 0 }', 'node.shaping.destinationsPerMinute'],
  ['half a destination', 'shaping: { destinationsPerMinute: 10.5 }', 'node.shaping.destinationsPerMinute'],
  ['no share', 'shaping: { egressShare: 0 }', 'node.shaping.egressShare'],
  ['too large a share', 'shaping: { egressShare: 33 }', 'node.shaping.egressShare'],
  ['a bucket that there is not', 'shaping: { igmp: 5kbps }', 'node.shaping.igmp']
] as const) {
  test(`${title} is refused by name`, (t) => {
    const error = t.throws(() => parse([`  ${line}`]), { code: 'CONFIG_INVALID' })
    t.true(error?.message.includes(field), error?.message)
  })
}

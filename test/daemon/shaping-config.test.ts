import test from 'ava'
import { parseConfig, type NodeConfig } from '../../src/daemon/config.ts'
import { delegatedShaping, shapingPolicy } from '../../src/daemon/shaping-config.ts'

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
  t.is(slow.uplink.own, 64_000)
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

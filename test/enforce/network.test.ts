import test from 'ava'
import { saysGone } from '../../src/enforce/network/veth.ts'
import * as fc from 'fast-check'
import { LIMITS } from '../../src/base/limits.ts'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import {
  indexOfAddress,
  indexOfClass,
  indexOfDevice,
  planLink
} from '../../src/enforce/network/address-plan.ts'
import { createNodeNetwork } from '../../src/enforce/network/node-network.ts'
import { mergeRanges, requireUnclaimed } from '../../src/enforce/network/owned-ports.ts'
import { parseQueueDrops, parseSentBytes } from '../../src/enforce/network/shaping.ts'
import { lastingAddress, neighbourRanges, type DeviceAddress } from '../../src/enforce/network/uplink6.ts'
import { addressOn, listeners } from '../../src/enforce/network/uplink.ts'
import { portsWithin, type PortRange } from '../../src/ticket/ports.ts'

const anyIndex = fc.integer({ min: 1, max: LIMITS.linksPerNodeMax })

test('no two links share a device, an address, a hardware address or a class', (t) => {
  fc.assert(
    fc.property(anyIndex, anyIndex, (a, b) => {
      fc.pre(a !== b)
      const names = [a, b].flatMap((index) => {
        const { index: _, ...names } = planLink(index)
        return Object.values(names)
      })
      return new Set(names).size === names.length
    })
  )
  t.pass()
})

test('a link is known again by its device, its addresses and each of its classes', (t) => {
  fc.assert(
    fc.property(anyIndex, (index) => {
      const plan = planLink(index)
      const { vserverClass, dataClass, icmpClass, optionsClass, newClass } = plan
      const classes = [vserverClass, dataClass, icmpClass, optionsClass, newClass]
      const addresses = [plan.address, plan.address6]
      return (
        indexOfDevice(plan.device) === index &&
        classes.every((each) => indexOfClass(each) === index) &&
        addresses.every((each) => indexOfAddress(each) === index)
      )
    })
  )
  for (const other of ['sl', 'sl0', 'slirp0', 'sl01', 'sl4096', 'eth0']) t.is(indexOfDevice(other), undefined)
  for (const other of ['1', '2']) t.is(indexOfClass(other), undefined)
  for (const other of ['100.64.1.1', '100.80.1.2', '100.64.0.2', 'fd51:ce51:ce51:1::1', 'fd51::2']) {
    t.is(indexOfAddress(other), undefined)
  }
})

test('merged ranges hold the same ports, apart and sorted', (t) => {
  const anyRange = fc
    .record({
      protocol: fc.constantFrom('tcp', 'udp', 'icmp'),
      first: fc.integer({ min: 1, max: 50 }),
      size: fc.nat(9)
    })
    .map(({ protocol, first, size }): PortRange => ({ protocol, first, last: first + size }))
  fc.assert(
    fc.property(fc.array(anyRange, { maxLength: 8 }), (ranges) => {
      const merged = mergeRanges(ranges)
      const apart = merged.every((range, at) => {
        const next = merged[at + 1]
        return next === undefined || next.protocol !== range.protocol || range.last + 1 < next.first
      })
      return apart && portsWithin(ranges, merged) && portsWithin(merged, ranges)
    })
  )
  t.pass()
})

test('a claimed port is refused with who claims it', (t) => {
  const claims = [{ by: 'the node', ports: [{ protocol: 'tcp', first: 20, last: 30 }] as const }]
  t.throws(() => requireUnclaimed([{ protocol: 'tcp', first: 1, last: 20 }], claims), {
    code: 'PORT_IN_USE',
    message: 'tcp/20 is in use by the node'
  })
  t.notThrows(() => requireUnclaimed([{ protocol: 'udp', first: 20, last: 20 }], claims))
})

test('listeners are those that others can reach at the address', (t) => {
  const table = `  sl  local_address rem_address   st
   0: 00000000:1F90 00000000:0000 0A
   1: 0100007F:1538 00000000:0000 0A
   2: 020212C6:0016 00000000:0000 0A
   3: 020212C6:D431 09090909:01BB 01
   4: 0000000000000000FFFF0000020212C6:0050 00000000000000000000000000000000:0000 0A
`
  const ports = listeners(table, 'tcp', [{ address: '198.18.2.2' }]).map((range) => range.first)
  t.deepEqual(ports, [8080, 22, 80])
  t.deepEqual(
    listeners(table, 'udp', [{ address: '198.18.2.2' }]).map((range) => range.first),
    [8080, 22, 80]
  )
})

test('listeners over IPv6 are those that others can reach at the node’s address', (t) => {
  const rest = '00000000000000000000000000000000:0000 0A'
  const table = `  sl  local_address rem_address   st
   0: B80D0120000002000000000002000000:1F90 ${rest}
   1: 00000000000000000000000001000000:1538 ${rest}
   2: 00000000000000000000000000000000:0016 ${rest}
   3: B80D0120000003000000000002000000:0050 ${rest}
`
  const heard = (at: Parameters<typeof listeners>[2]): number[] =>
    listeners(table, 'tcp', at).map((range) => range.first)
  t.deepEqual(heard([{ address: '198.18.2.2', address6: '2001:db8:2::2' }]), [8080, 22])
  t.deepEqual(heard([{ address: '198.18.2.2' }]), [22])
})

test('the node’s IPv6 address is one that lasts and is on the internet', (t) => {
  const at = (local: string, more: object = {}): DeviceAddress => ({
    family: 'inet6',
    scope: 'global',
    local,
    ...more
  })
  const passing = [
    at('fe80::1', { scope: 'link' }),
    at('fd00::1'),
    at('2001:db8::3', { temporary: true }),
    at('2001:db8::4', { deprecated: true }),
    at('2001:db8::5', { tentative: true }),
    { family: 'inet', scope: 'global', local: '198.18.0.1' }
  ]
  t.is(lastingAddress(passing), undefined)
  // The kernel names the newest first.
  const lasting = [...passing, at('2001:db8::7'), at('2001:db8::6')]
  t.is(lastingAddress(lasting), '2001:db8::6')
  t.is(lastingAddress(lasting, '2001:db8::7'), '2001:db8::7')
  t.is(lastingAddress(lasting, '2001:db8::4'), '2001:db8::6')
})

test('the node’s neighbours over IPv6 are in the ranges of its addresses, a link wide at least', (t) => {
  const at = (local: string, prefixlen: number, more: object = {}): DeviceAddress => ({
    family: 'inet6',
    scope: 'global',
    local,
    prefixlen,
    ...more
  })
  const addresses = [
    at('2001:db8:1:2::5', 64),
    at('2001:db8:1:2:aaaa::7', 64, { temporary: true }),
    at('2001:db8:1:3:ffff::1', 128),
    at('2001:db8:ff:fff7::1', 61),
    at('2001:db9:ffff::1', 33),
    at('fe80::1', 64, { scope: 'link' }),
    { family: 'inet', scope: 'global', local: '198.18.0.1', prefixlen: 24 }
  ]
  t.deepEqual(neighbourRanges(addresses), [
    '2001:db8:1:2::/64',
    '2001:db8:1:3::/64',
    '2001:db8:ff:fff0::/61',
    '2001:db9:8000::/33'
  ])
})

test('a flow’s own end is an address of its family, or the unspecified one', (t) => {
  const four = { device: 'up0', address: '198.18.2.2' }
  const both = { device: 'up1', address: '198.18.3.2', address6: '2001:db8:3::2' }
  const ends = (like: string): string[] =>
    ['up0', 'up1', 'sl1'].map((device) => addressOn([four, both], like, device))
  t.deepEqual(ends('192.0.2.9'), ['198.18.2.2', '198.18.3.2', '198.18.2.2'])
  t.deepEqual(ends('2001:db8::9'), ['::', '2001:db8:3::2', '::'])
  t.is(addressOn([both, four], '2001:db8::9', 'sl1'), '2001:db8:3::2')
})

test('bytes sent are read from the leaves of links alone', (t) => {
  const plan = planLink(3)
  const line = (id: string, leaf: string, bytes: number): string =>
    `class htb 51ce:${id} parent 51ce:1 ${leaf}prio 1 rate 1Mbit\n Sent ${bytes} bytes 2 pkt (dropped 0)\n backlog 0b\n`
  const printed = [
    line('2', '', 9),
    line(plan.vserverClass, '', 7),
    line(plan.dataClass, `leaf ${plan.dataClass}: `, 5),
    line(plan.icmpClass, `leaf ${plan.icmpClass}: `, 1),
    line(plan.newClass, `leaf ${plan.newClass}: `, 1)
  ].join('\n')
  t.deepEqual([...parseSentBytes(printed)], [[3, 7]])
})

test('what queues dropped is read by link, of all its queues together', (t) => {
  const [own, link, icmp] = ['2', planLink(3).dataClass, planLink(3).icmpClass]
  const queue = (kind: string, parent: string, dropped: number): string =>
    `qdisc ${kind} ${parent}: dev up0 parent 51ce:${parent} limit 10p\n` +
    ` Sent 70 bytes 1 pkt (dropped ${dropped}, overlimits 0 requeues 0) \n backlog 0b 0p requeues 0\n`
  const root =
    'qdisc htb 51ce: root refcnt 3 r2q 10\n Sent 0 bytes 0 pkt (dropped 99, overlimits 0 requeues 0) \n'
  const printed = root + queue('fq_codel', own, 5) + queue('fq_codel', link, 3) + queue('bfifo', icmp, 4)
  t.deepEqual([...parseQueueDrops(printed)], [[3, 7]])
  t.deepEqual([...parseQueueDrops(printed.replaceAll(' dev up0', ''))], [[3, 7]])
})

test('a range that is no range of addresses is refused before anything is run', (t) => {
  for (const range of [
    '10.0.0.0/33',
    '10.0.0',
    '10.0.0.0/8/8',
    '::/129',
    'fe80::1%lo/64',
    '0.0.0.0/0 }; flush ruleset'
  ]) {
    const init = {
      uplinks: [{ rootBps: 1, nodeBps: 1 }],
      reservedPorts: [],
      allowedPrivateRanges: [range],
      stateDirectory: '/nonexistent'
    }
    t.throws(() => createNodeNetwork({ clock: systemClock, logger: silentLogger }, init), {
      code: 'CONFIG_INVALID'
    })
  }
})

test('a node without an uplink is refused', (t) => {
  const init = { uplinks: [], reservedPorts: [], allowedPrivateRanges: [], stateDirectory: '/nonexistent' }
  t.throws(() => createNodeNetwork({ clock: systemClock, logger: silentLogger }, init), {
    code: 'CONFIG_INVALID',
    message: /no uplink/
  })
})

test('a link that went away while it was being removed counts as removed, and nothing else does', (t) => {
  t.true(saysGone('Cannot find device "sl12"\n'))
  t.true(saysGone('RTNETLINK answers: No such device\n'))
  t.false(saysGone('RTNETLINK answers: Operation not permitted\n'))
  t.false(saysGone(''))
})

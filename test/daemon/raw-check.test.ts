/** What `slicenet raw check` tells of packets in hexadecimal, compared with what the node counts (test/linux/net proves that). */
import test from 'ava'
import { checkPacket, ownAddresses } from '../../src/daemon/raw-check.ts'
import { planLink } from '../../src/enforce/network/address-plan.ts'
import { framed6, message6, segment6, udp6, ipv6Packet } from '../linux/net/frames6.ts'
import { ordinary, OWN, spoofClasses, translated, type SpoofClass } from '../linux/net/spoof-classes.ts'
import { ordinary6, spoofClasses6, translated6 } from '../linux/net/spoof-classes6.ts'

const one = planLink(1)
const ports = (['tcp', 'udp', 'icmp'] as const).map((protocol) => {
  const number = protocol === 'icmp' ? OWN.id : OWN.port
  return { protocol, first: number, last: number }
})
const four = { world: '198.18.0.2', node: '198.18.1.2' }
const six = { world: '2001:db8:1::2', node: '2001:db8:2::2' }
/** As if policy let them reach the world, which is in ranges for examples. */
const lease = { rawSockets: true, ports, allowedRanges: [`${four.world}/32`, `${six.world}/128`] }
const leases = [lease, { ...lease, address: one.address, address6: one.address6 }]
const told = (frame: Buffer, of = lease) => checkPacket(frame.toString('hex'), of)

test('each class of what must not leave over IPv6 is told under the reason that it is counted as', (t) => {
  for (const of of leases) {
    for (const { name, frames, counted } of spoofClasses6(six)) {
      for (const frame of frames) t.is(told(frame, of).reason, counted, name)
    }
  }
})

test('so is each of IPv4, but for ARP, of which nothing is told, and IPv6 on a node without it', (t) => {
  const isTold = ({ counted }: SpoofClass): boolean => counted !== 'arp' && counted !== 'ipv6'
  for (const of of leases) {
    for (const { name, frames, counted } of spoofClasses(four).filter(isTold)) {
      for (const frame of frames) t.is(told(frame, of).reason, counted, name)
    }
  }
})

test('what is right is kept, and what is from others’ ports leaves from the range that all share', (t) => {
  for (const frame of [ordinary(four), ordinary6(six)]) t.is(told(frame).outcome, 'kept')
  for (const { name, frames } of [...translated(four), ...translated6(six)]) {
    t.is(told(frames[0] ?? Buffer.alloc(0)).outcome, 'shared', name)
  }
})

test('of IPv6 a packet is told of as a frame with it is, and that the node must have it', (t) => {
  const ends = { src: one.address6, dst: '2001:470::8' }
  const packet = segment6(ends, { sport: OWN.port, dport: 80, flags: 1 })
  for (const bytes of [packet, framed6(packet, one)]) {
    const { outcome, text } = told(bytes)
    t.is(outcome, 'kept')
    t.regex(text, /tcp\/8080.* where the node has IPv6$/)
  }
  // Where a frame has its type this packet has a part of an address.
  const lookalike = message6({ src: 'fd51:ce51:ce51:800::2', dst: ends.dst }, 128, OWN.id << 16)
  t.is(told(lookalike).outcome, 'kept')
  t.like(told(message6({ ...ends, dst: '::1' }, 128)), { outcome: 'dropped' })
  t.like(checkPacket('6000', lease), { outcome: 'dropped', reason: 'length' })
  t.like(told(packet, { ...lease, rawSockets: false }), { reason: 'EPERM' })
})

test('a header that is longer than its segment begins no connection', (t) => {
  const ends = { src: one.address6, dst: '2001:470::8' }
  const syn = (sport: number) => segment6(ends, { sport, dport: 80, flags: 2, headerWords: 8 })
  t.like(told(syn(5000)), { outcome: 'dropped', reason: 'untracked' })
  t.is(told(syn(OWN.port)).outcome, 'kept')
})

test('another vserver’s address is none of this one’s, in either family, by either address', (t) => {
  const ends = { src: planLink(2).address6, dst: '2001:470::8' }
  const packet = ipv6Packet({ ...ends, next: 17, body: udp6(ends, { sport: OWN.port, dport: 53 }) })
  t.is(told(packet).outcome, 'kept')
  for (const from of [one.address, one.address6, 'fd51:ce51:ce51:0001:0::2']) {
    t.deepEqual(ownAddresses(from), { address: one.address, address6: one.address6 })
    t.is(told(packet, { ...lease, ...ownAddresses(from) }).reason, 'source')
  }
  t.deepEqual(ownAddresses('192.0.2.1'), { address: '192.0.2.1' })
  for (const none of ['', 'fe80::1%eth0', '192.0.2', 'x']) t.is(ownAddresses(none), undefined)
})

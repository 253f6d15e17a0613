import test from 'ava'
import { multiaddr } from '@multiformats/multiaddr'
import { LIMITS } from '../../src/base/limits.ts'
import { AnnouncedAddresses } from '../../src/peer/announced-addresses.ts'
import { judgeReach, type ReachEvidence } from '../../src/peer/judged-reach.ts'

const NOTHING: ReachEvidence = {
  isAnnounced: false,
  hosts: ['127.0.0.1', '192.168.1.5'],
  sightings: [],
  dialedBy: [],
  missedBy: 0
}
const judge = (evidence: Partial<ReachEvidence>) => judgeReach({ ...NOTHING, ...evidence })

test('nothing is known without evidence, but that who listens nowhere is not reached', (t) => {
  t.is(judge({}), 'unknown')
  t.is(judge({ hosts: [] }), 'unreachable')
  t.is(judge({ hosts: [], isAnnounced: true }), 'reachable')
})

test('a peer that others see at an address not its own is behind a NAT, whoever on its LAN dials it', (t) => {
  const outside = { as: '203.0.113.7', by: '198.51.100.1' }
  const inside = { as: '192.168.1.5', by: '192.168.1.9' }
  t.is(judge({ sightings: [outside] }), 'unreachable')
  t.is(judge({ sightings: [inside, inside, inside, outside], dialedBy: ['192.168.1.9'] }), 'unreachable')
  t.is(judge({ sightings: [inside], dialedBy: ['192.168.1.9'] }), 'reachable')
  t.is(judge({ sightings: [outside], isAnnounced: true }), 'reachable')
})

test('one liar among many does not make a reachable peer take itself for unreachable', (t) => {
  const hosts = ['198.51.100.5']
  const honest = { as: '198.51.100.5', by: '198.51.100.1' }
  const lie = { as: '192.0.2.66', by: '198.51.100.6' }
  t.is(judge({ hosts, sightings: [honest, honest, lie], dialedBy: ['198.51.100.1'] }), 'reachable')
  t.is(judge({ hosts, sightings: [lie], dialedBy: ['198.51.100.1'] }), 'unreachable')
})

test('only those who dialed it make it reachable, and those who could not make it unreachable', (t) => {
  const hosts = ['198.51.100.5']
  const sightings = [{ as: '198.51.100.5', by: '198.51.100.1' }]
  t.is(judge({ hosts, sightings }), 'unknown')
  t.is(judge({ hosts, sightings, missedBy: 2 }), 'unreachable')
  t.is(judge({ hosts, sightings, missedBy: 2, dialedBy: ['198.51.100.1'] }), 'reachable')
  t.is(judge({ hosts, dialedBy: ['127.0.0.1'] }), 'unknown', 'one of this machine shows nothing')
  t.is(judge({ hosts: ['127.0.0.1'], dialedBy: ['127.0.0.1'] }), 'reachable', 'unless there is nothing else')
})

const SELF = '12D3KooWQ128gHPkbGjfwFkGnwnJYrkz4hNWMN5oNobchojZbhKt'
const RELAY = '12D3KooWGRUSHTZCd2TwfCaRDGhHz2xHpxCrNTzHaaBzXQUH6gGU'
const own = (host: string) => multiaddr(`/ip4/${host}/tcp/4001/p2p/${SELF}`)
const texts = (addresses: readonly unknown[]): string[] => addresses.map(String)

test('a peer behind a NAT tells of its relay and not of its own addresses, once it has one', (t) => {
  const announced = new AnnouncedAddresses(SELF)
  const addresses = [own('127.0.0.1'), own('192.168.1.5')]
  t.deepEqual(texts(announced.filter(addresses)), texts([own('192.168.1.5')]))
  announced.isUnreachable = true
  t.deepEqual(texts(announced.filter(addresses)), texts([own('192.168.1.5')]), 'nothing better is known')
  const relay = ['127.0.0.1', '198.51.100.1'].map((host) => multiaddr(`/ip4/${host}/tcp/4001/p2p/${RELAY}`))
  announced.addRelay(RELAY, relay)
  t.deepEqual(texts(announced.filter(addresses)), [
    `/ip4/198.51.100.1/tcp/4001/p2p/${RELAY}/p2p-circuit/p2p/${SELF}`
  ])
  announced.removeRelay(RELAY)
  t.deepEqual(texts(announced.filter(addresses)), texts([own('192.168.1.5')]))
})

test('addresses told are no more than an advert has room for, and one of this machine is told if it is all', (t) => {
  const announced = new AnnouncedAddresses(SELF)
  t.deepEqual(texts(announced.filter([own('127.0.0.1')])), texts([own('127.0.0.1')]))
  const many = Array.from({ length: 40 }, (_item, index) => own(`198.51.100.${index + 1}`))
  t.is(announced.filter(many).length, LIMITS.announcedAddressesMax)
})

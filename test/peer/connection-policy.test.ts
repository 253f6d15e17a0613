import test from 'ava'
import { multiaddr } from '@multiformats/multiaddr'
import fc from 'fast-check'
import * as v from 'valibot'
import { addressMatcher, firstHop, isAddressRange } from '../../src/peer/address-range.ts'
import {
  ConnectionJudge,
  connectionPolicySchema,
  joinedPolicies,
  type ConnectionPolicy,
  type Visitor
} from '../../src/peer/connection-policy.ts'
import { makeKey } from '../ticket/fixtures.ts'

const [alice, bob, university, mill] = [makeKey(), makeKey(), makeKey(), makeKey()].map(
  ({ principal }) => principal
) as [string, string, string, string]
const policy = (input: unknown): ConnectionPolicy => v.parse(connectionPolicySchema, input)
const judge = (input: unknown, who: Partial<Visitor> = {}, trusted: readonly string[] = []): string =>
  new ConnectionJudge(policy(input), trusted).judge({
    principal: alice,
    address: '192.0.2.1',
    organisations: [],
    ...who
  })

test('without a policy everybody is let in', (t) => {
  t.is(judge({}), 'admitted')
  t.is(judge({ deny: { principals: [bob] } }), 'admitted')
  t.false(new ConnectionJudge({}).isClosedTo('192.0.2.1'))
})

test('any one of principal, organisation and address lets in, and what is denied is denied all the same', (t) => {
  const allow = { principals: [alice], organisations: [university], addresses: ['198.51.100.0/24'] }
  t.is(judge({ allow }), 'admitted')
  t.is(judge({ allow }, { principal: bob }), 'unproven')
  t.is(judge({ allow }, { principal: bob, organisations: [mill] }), 'unproven')
  t.is(judge({ allow }, { principal: bob, organisations: [mill, university] }), 'admitted')
  t.is(judge({ allow }, { principal: bob, address: '198.51.100.7' }), 'admitted')
  t.is(judge({ allow }, { principal: university }), 'admitted', 'it need not vouch for itself')
  const all = { principal: alice, address: '198.51.100.7', organisations: [university, mill] }
  for (const deny of [{ principals: [alice] }, { organisations: [mill] }, { addresses: ['198.51.100.7'] }]) {
    t.is(judge({ allow, deny }, all), 'denied', JSON.stringify(deny))
    t.is(judge({ allow, deny }, all, [alice]), 'denied', 'trusted or not')
  }
})

test('where no organisation is allowed nobody is given time to show one', (t) => {
  t.is(judge({ allow: { principals: [bob] } }), 'denied')
  t.is(judge({ allow: {} }), 'denied', 'an empty list lets nobody in')
  t.is(judge({ allow: {} }, {}, [alice]), 'admitted', 'but whom the configuration names')
})

test('an address is refused before anybody says who is there only if nobody there could be let in', (t) => {
  const closed = (input: unknown, trusted: readonly string[] = []): boolean =>
    new ConnectionJudge(policy(input), trusted).isClosedTo('192.0.2.1')
  t.true(closed({ deny: { addresses: ['192.0.2.0/24'] } }))
  t.false(closed({ deny: { addresses: ['192.0.3.0/24'] } }))
  t.true(closed({ allow: { addresses: ['198.51.100.0/24'] } }))
  t.false(closed({ allow: { addresses: ['198.51.100.0/24'] } }, [alice]))
  t.false(closed({ allow: { addresses: ['198.51.100.0/24'], principals: [alice] } }))
  t.false(closed({ allow: { addresses: ['198.51.100.0/24'], organisations: [mill] } }))
})

test('ranges match what lies in them, whichever way an address is written', (t) => {
  const matches = addressMatcher(['203.0.113.0/25', '2001:db8:1::/48', '192.0.2.9', '::1'])
  for (const inside of [
    '203.0.113.0',
    '203.0.113.127',
    '192.0.2.9',
    '2001:db8:1:2::3',
    '::1',
    '::ffff:203.0.113.5'
  ]) {
    t.true(matches(inside), inside)
  }
  for (const outside of [
    '203.0.113.128',
    '192.0.2.8',
    '2001:db8:2::1',
    '::2',
    '::ffff:192.0.2.1',
    'example',
    ''
  ]) {
    t.false(matches(outside), outside)
  }
  t.true(addressMatcher(['0.0.0.0/0'])('8.8.8.8'))
  t.false(addressMatcher([])('8.8.8.8'))
})

test('a range of IPv4 addresses matches as arithmetic says', (t) => {
  const octets = fc.tuple(...[0, 1, 2, 3].map(() => fc.integer({ min: 0, max: 255 })))
  fc.assert(
    fc.property(octets, octets, fc.integer({ min: 0, max: 32 }), (base, other, prefix) => {
      const bits = (parts: readonly number[]): bigint =>
        parts.reduce((sum, part) => (sum << 8n) | BigInt(part), 0n) >> BigInt(32 - prefix)
      const matches = addressMatcher([`${base.join('.')}/${prefix}`])
      t.is(matches(other.join('.')), bits(base) === bits(other))
      t.true(matches(base.join('.')))
    })
  )
})

test('what is no range is none', (t) => {
  for (const text of [
    '',
    '192.0.2.0/33',
    '2001:db8::/129',
    '192.0.2/24',
    'example/8',
    '192.0.2.0/',
    '192.0.2.0/x',
    'fe80::1%eth0',
    '192.0.2.0/24/8',
    ' 192.0.2.0/24'
  ]) {
    t.false(isAddressRange(text), text)
    t.throws(() => addressMatcher([text]), { instanceOf: TypeError })
    t.throws(() => policy({ deny: { addresses: [text] } }))
  }
  t.throws(() => policy({ deny: { principals: ['alice'] } }))
  t.throws(() => policy({ denied: {} }))
})

test('the first hop of a multiaddr is where it is dialed, and behind a relay not where the peer is', (t) => {
  const hop = (text: string) => firstHop(multiaddr(text))
  t.deepEqual(hop('/ip4/192.0.2.1/tcp/1'), { address: '192.0.2.1', isRelayed: false })
  t.deepEqual(hop(`/ip6/2001:db8::1/tcp/1/p2p/${alice}`), { address: '2001:db8::1', isRelayed: false })
  t.deepEqual(hop('/dns4/boot.example/tcp/1'), { name: 'boot.example', isRelayed: false })
  t.deepEqual(hop(`/ip4/192.0.2.1/tcp/1/p2p/${alice}/p2p-circuit/p2p/${bob}`), {
    address: '192.0.2.1',
    isRelayed: true
  })
  t.deepEqual(hop(`/p2p/${alice}`), { isRelayed: false })
})

test('of two policies both deny and both allow', (t) => {
  const one = policy({ deny: { principals: [alice] }, allow: { principals: [bob] } })
  const other = policy({ deny: { addresses: ['192.0.2.0/24'] }, allow: { organisations: [mill] } })
  t.deepEqual(joinedPolicies(one, other), {
    deny: { principals: [alice], organisations: [], addresses: ['192.0.2.0/24'] },
    allow: { principals: [bob], organisations: [mill], addresses: [] }
  })
  t.deepEqual(joinedPolicies({}, other), other)
  t.deepEqual(joinedPolicies(one, {}), one)
  t.deepEqual(joinedPolicies({}, {}), {})
})

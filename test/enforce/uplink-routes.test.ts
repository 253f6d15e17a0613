import test from 'ava'
import { routesThrough, type HostRoute } from '../../src/enforce/network/uplink-routes.ts'

const onLink: HostRoute = { dst: '192.0.2.0/24', dev: 'a', scope: 'link', prefsrc: '192.0.2.7', flags: [] }
const everywhere = (gateway: string, more: Partial<HostRoute> = {}): HostRoute => ({
  dst: 'default',
  gateway,
  dev: 'a',
  flags: [],
  ...more
})
const ON_LINK = '192.0.2.0/24 dev a scope link src 192.0.2.7'

test('an uplink’s routes lead to its link and to everywhere, and are those of no other device', (t) => {
  const others: HostRoute[] = [
    { dst: '198.51.100.0/24', dev: 'b', scope: 'link', flags: [] },
    everywhere('198.51.100.1', { dev: 'b' }),
    { dst: '203.0.113.0/24', gateway: '192.0.2.9', dev: 'a', flags: [] },
    { type: 'local', dst: '192.0.2.7', dev: 'a', table: 'local', scope: 'host', flags: [] },
    { type: 'blackhole', dst: 'default', flags: [] }
  ]
  t.deepEqual(routesThrough('a', [...others, onLink, everywhere('192.0.2.1')]), [
    ON_LINK,
    'default via 192.0.2.1 dev a'
  ])
  t.deepEqual(routesThrough('c', [...others, onLink]), [])
})

test('of several default routes the main table’s of the lowest metric counts, and never a copy', (t) => {
  const copy = everywhere('192.0.2.5', { table: '5361153' })
  const other = everywhere('192.0.2.4', { table: '100' })
  t.deepEqual(routesThrough('a', [copy]), [])
  t.deepEqual(routesThrough('a', [copy, other]), ['default via 192.0.2.4 dev a'])
  const main = [everywhere('192.0.2.3', { metric: 200 }), everywhere('192.0.2.2', { metric: 100 })]
  t.deepEqual(routesThrough('a', [copy, other, ...main]), ['default via 192.0.2.2 dev a'])
  t.deepEqual(routesThrough('a', [everywhere('192.0.2.2', { flags: ['dead', 'linkdown'] })]), [])
})

test('a default route by several devices counts for each of them', (t) => {
  const shared: HostRoute = {
    dst: 'default',
    flags: [],
    nexthops: [
      { gateway: '192.0.2.1', dev: 'a' },
      { gateway: '198.51.100.1', dev: 'b' }
    ]
  }
  t.deepEqual(routesThrough('a', [shared]), ['default via 192.0.2.1 dev a'])
  t.deepEqual(routesThrough('b', [shared]), ['default via 198.51.100.1 dev b'])
})

test('a device that is all the way there is needs no gateway', (t) => {
  t.deepEqual(routesThrough('tun0', [{ dst: 'default', dev: 'tun0', scope: 'link', flags: [] }]), [
    'default dev tun0 scope link'
  ])
})

test('routes of IPv6, which have no scope, are told by their having no gateway', (t) => {
  const routes: HostRoute[] = [
    { dst: '2001:db8:1::/64', dev: 'a', metric: 256, flags: [] },
    { dst: 'fe80::/64', dev: 'a', metric: 256, flags: [] },
    { dst: '2001:db8:2::/64', gateway: 'fe80::1', dev: 'a', flags: [] },
    { type: 'local', dst: '2001:db8:1::2', dev: 'a', table: 'local', flags: [] },
    { dst: 'default', gateway: 'fe80::1', dev: 'a', metric: 1024, flags: [] }
  ]
  t.deepEqual(routesThrough('a', routes), ['2001:db8:1::/64 dev a', 'default via fe80::1 dev a'])
})

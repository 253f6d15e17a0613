import test from 'ava'
import { requireUnclaimed } from '../../src/enforce/network/owned-ports.ts'
import { parseTunnelKeys } from '../../src/enforce/network/tunnel-keys.ts'

/** As iproute2 prints them. */
const link = (kind: string, data: object): object => ({
  ifname: kind,
  linkinfo: { info_kind: kind, info_data: data }
})
const keysOf = (...links: object[]): string[] =>
  parseTunnelKeys(JSON.stringify(links)).map(({ first, last }) => `${first}-${last}`)

test('keys of tunnels of every kind are found, those of both directions', (t) => {
  t.deepEqual(
    keysOf(
      { ifname: 'lo' },
      {},
      link('veth', {}),
      link('gre', { remote: 'any', local: '192.0.2.1', ikey: '0.0.0.7', okey: '0.0.0.9' }),
      link('gretap', { ikey: '10.0.0.1', okey: '10.0.0.1' }),
      link('erspan', { ikey: '0.0.0.77', okey: '0.0.0.77', erspan_ver: 1 }),
      link('ip6gre', { ikey: '255.255.255.255', okey: '255.255.255.255' }),
      link('ip6gretap', { remote: '::2' }),
      // A key as well, and no GRE.
      link('vti', { ikey: '0.0.0.5', okey: '0.0.0.5' })
    ),
    ['7-7', '9-9', '167772161-167772161', '77-77', '4294967295-4294967295']
  )
  t.deepEqual(parseTunnelKeys(''), [])
})

test('a tunnel that takes its keys from each packet has all', (t) => {
  t.deepEqual(keysOf(link('gre', { external: true })), ['1-4294967295'])
})

test('a key of a tunnel is refused by name', (t) => {
  const ports = parseTunnelKeys(JSON.stringify([link('gre', { ikey: '0.0.0.70', okey: '0.0.0.70' })]))
  const claims = [{ by: 'a tunnel of the node', ports }]
  const error = t.throws(() => requireUnclaimed([{ protocol: 'gre', first: 60, last: 80 }], claims), {
    code: 'PORT_IN_USE'
  })
  t.is(error?.message, 'gre/70 is in use by a tunnel of the node')
  t.notThrows(() => requireUnclaimed([{ protocol: 'gre', first: 71, last: 80 }], claims))
})

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import test from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import { serveControl } from '../daemon/control-fixture.ts'
import { cli } from './cli-fixture.ts'
import { finding, leaseView, nodeView } from './views.ts'

/** An empty datagram from a vserver’s port 9000 to port 53 of 192.0.2.8. */
const DATAGRAM = '4500001c000000004011000064400102c0000208 2328003500080000'

test('what a lease allows is told, and what becomes of a packet on standard input', async (t) => {
  const leases = [{ ...leaseView, rights: ['raw-socket' as const] }]
  await using control = await serveControl({
    leaseList: async () => ({ leases }),
    find: async () => {
      throw new SlicenetError('NO_MATCH', 'no node is known')
    }
  })
  const home = control.directory
  const { stdout } = await cli(['raw', 'check', 'mesh'], { home })
  t.regex(stdout, /AF_PACKET.*\n.*tcp\/9000-9002\n.*tcp\/40000-60999/)
  const options = { home, stdin: Readable.from([DATAGRAM]) }
  const checked = (await cli(['raw', 'check', 'mesh', '--packet', '-', '--json'], options)).json()
  t.like(checked, { slice: 'mesh', rawSockets: true, owned: ['tcp/9000-9002'] })
  t.deepEqual(checked['packet'], {
    outcome: 'shared',
    text: 'leaves from 40000-60999 instead of udp/9000, which the lease does not own'
  })
})

test('each packet of a capture is told of, from a file and from standard input', async (t) => {
  const bytes = Buffer.from(DATAGRAM.replaceAll(' ', ''), 'hex')
  const head = 'd4c3b2a1020004000000000000000000ffff000065000000'
  const record = `0100000000000000${'1c000000'.repeat(2)}`
  const capture = Buffer.concat([
    Buffer.from(head, 'hex'),
    ...[1, 2].flatMap(() => [Buffer.from(record, 'hex'), bytes])
  ])
  await using control = await serveControl({ leaseList: async () => ({ leases: [] }) })
  const file = join(control.directory, 'sent.pcap')
  await writeFile(file, capture)
  const { stdout } = await cli(['raw', 'check', '--port', 'udp/9000', '--capture', file])
  t.regex(stdout, /NO .*\n1 +kept +- +leaves from udp\/9000.*\n2 +kept/)
  for (const option of ['--capture', '--packet']) {
    const checked = await cli(['raw', 'check', option, '-', '--json'], { stdin: Readable.from([capture]) })
    const packets = checked.json()['packets'] as { outcome: string }[]
    t.deepEqual(
      packets.map(({ outcome }) => outcome),
      ['shared', 'shared']
    )
  }
  const missing = await cli(['raw', 'check', '--capture', join(control.directory, 'none')])
  t.regex(missing.stderr, /NOT_FOUND/)
  t.is((await cli(['raw', 'check', '--capture', file, '--packet', '45'])).exitCode, 2)
})

test('without the right every packet is EPERM, and without a lease ports are given', async (t) => {
  await using control = await serveControl({ leaseList: async () => ({ leases: [leaseView] }), ...finding() })
  const home = control.directory
  const refused = await cli(['raw', 'check', 'mesh', '--packet', DATAGRAM], { home })
  t.regex(refused.stdout, /dropped[^]*EPERM/)
  const given = await cli(['raw', 'check', '--port', 'udp/9000', '--packet', DATAGRAM])
  t.regex(given.stdout, /kept\n.*leaves from udp\/9000/)
  const frame = `025100000000 025100000001 0800 ${DATAGRAM}`
  const elsewhere = await cli(['raw', 'check', '--from', '100.64.1.3', '--packet', frame])
  t.regex(elsewhere.stdout, /dropped[^]*counted as: +source/)
})

test('of IPv6 the same is told, by an own address of either family', async (t) => {
  /** An empty datagram of the first vserver’s port 9000. */
  const packet =
    '60000000 0008 11 40 fd51ce51ce5100010000000000000002 20010470000000000000000000000008 2328003500080000'
  for (const from of ['fd51:ce51:ce51:1::2', '100.64.1.2']) {
    const { stdout } = await cli(['raw', 'check', '--port', 'udp/9000', '--from', from, '--packet', packet])
    t.regex(stdout, /kept\n.*leaves from udp\/9000.* where the node has IPv6/)
  }
  const elsewhere = await cli(['raw', 'check', '--from', 'fd51:ce51:ce51:2::2', '--packet', packet])
  t.regex(elsewhere.stdout, /dropped[^]*counted as: +source/)
})

test('the node’s own addresses and ranges that its policy allows are known', async (t) => {
  const leases = [{ ...leaseView, rights: ['raw-socket' as const] }]
  /** An empty datagram to port 53 of 2001:db8::7. */
  const packet =
    '60000000 0008 11 40 fd51ce51ce5100010000000000000002 20010db8000000000000000000000007 9c40003500080000'
  const toNode = async (address6: string): Promise<string> => {
    const node = { ...nodeView, attributes: { address6 } }
    await using control = await serveControl({ leaseList: async () => ({ leases }), ...finding(node) })
    const asked = await cli(['raw', 'check', 'mesh', '--packet', packet], { home: control.directory })
    return asked.stdout
  }
  t.regex(await toNode('2001:db8::7'), /related[^]*the node’s own address/)
  t.regex(await toNode('2001:db8::8'), /dropped[^]*denied/)

  const allowing = async (...allowed: string[]): Promise<string> => {
    const options = [...allowed.flatMap((range) => ['--allowed', range]), '--packet', packet]
    return (await cli(['raw', 'check', ...options])).stdout
  }
  t.regex(await allowing(), /dropped[^]*denied/)
  t.regex(await allowing('10.0.0.0/8', '2001:db8::/32'), /shared/)
  t.regex(await allowing('2001:db8::7'), /shared/)
})

test('what is no port and no packet is USAGE', async (t) => {
  for (const words of [
    ['--port', 'tcp/70000'],
    ['--packet', 'nothing'],
    ['--from', 'fe80::1%eth0'],
    ['--allowed', '10.0.0.0/33'],
    ['--packet', '4500']
  ]) {
    const { exitCode, stdout } = await cli(['raw', 'check', ...words])
    if (words[1] === '4500') t.regex(stdout, /no IPv4 packet/)
    else t.is(exitCode, 2, words.join(' '))
  }
})

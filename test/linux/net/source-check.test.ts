import test from 'ava'
import { Lab, type Seen, type Vserver } from './lab.ts'

const lab = new Lab({ letter: 's' })
let vserver: Vserver

test.before(async () => {
  await lab.up()
  vserver = await lab.vserver('one')
})
test.after.always(() => lab.down())

const packet = (src: string): object => ({
  op: 'send',
  proto: 'udp',
  src,
  dst: lab.worldAddress,
  sport: 5000,
  dport: 5001
})

test.serial('a packet with the vserver’s own address leaves, from the node’s', async (t) => {
  await vserver.probe.ask(packet(vserver.address))
  const seen = await lab.world.ask<Seen[]>({ op: 'take', match: { dport: 5001 }, least: 1, wait: 2 })
  t.is(seen[0]?.src, lab.nodeAddress)
  t.true(seen[0]?.ok)
})

test.serial(
  'no frame from another source, of another kind or with a tag in front gets past the host’s end',
  async (t) => {
    const before = (await lab.counters()).refused['one']
    const forged = [
      packet('203.0.113.7'),
      packet(lab.nodeAddress),
      packet('100.64.2.2'),
      { ...packet(vserver.address), mac: '02:00:00:00:00:09' },
      { ...packet(vserver.address), vlan: 7 },
      { ...packet(vserver.address), vlan: 0 },
      { ...packet(vserver.address), proto: '47' },
      { op: 'send', ether: 'ipv6' },
      { op: 'send', ether: 'arp', src: '100.64.1.1', dst: '100.64.1.2' },
      { op: 'send', ether: 'other' }
    ]
    for (const request of forged) await vserver.probe.ask({ ...request, count: 200 })
    t.deepEqual(await lab.world.ask({ op: 'take', wait: 0.3 }), [])
    const after = (await lab.counters()).refused['one']
    t.is((after?.source ?? 0) - (before?.source ?? 0), 800)
    t.is((after?.protocol ?? 0) - (before?.protocol ?? 0), 200)
    t.true((after?.ipv6 ?? 0) - (before?.ipv6 ?? 0) >= 200)
    t.is((after?.other ?? 0) - (before?.other ?? 0), 800)
  }
)

test.serial('without the chain on the host’s end the same packets leave', async (t) => {
  // The rules of the node's table would stop some of these too; the source check is shown by itself.
  await lab.nft(
    'flush chain netdev slicenet sl1; chain netdev slicenet sl1 { policy accept; }; flush chain ip slicenet leaving'
  )
  await vserver.probe.ask({ ...packet('203.0.113.7'), count: 200 })
  const seen = await lab.world.ask<Seen[]>({ op: 'take', match: { dport: 5001 }, least: 200, wait: 3 })
  t.is(seen.length, 200)
})

import test from 'ava'
import { flowEnds } from '../../src/enforce/network/flow.ts'
import { parseTrackedLine, type TrackedLine } from '../../src/enforce/network/tracked-line.ts'
import { numbersOf } from '../base/seeded-numbers.ts'

const NEW =
  '[1795886222.875667]\t    [NEW] udp      17 30 src=100.64.1.2 dst=192.0.2.9 sport=38277 dport=53 [UNREPLIED] src=192.0.2.9 dst=198.51.100.1 sport=53 dport=40010 id=1666060726'
const DESTROY =
  '[1795886224.543837]\t[DESTROY] tcp      6 8 CLOSE src=192.0.2.9 dst=198.51.100.1 sport=50394 dport=9090 packets=4 bytes=216 src=100.64.1.2 dst=192.0.2.9 sport=9090 dport=50394 packets=2 bytes=117 [ASSURED] delta-time=2 [start=Sat Nov 28 17:17:02 2026] [stop=Sat Nov 28 17:17:04 2026] id=1889838627 [USERSPACE] portid=3356049869'
const LISTED =
  'icmp     1 29 src=100.64.1.2 dst=192.0.2.9 type=8 code=0 id=14826 packets=1 bytes=84 src=192.0.2.9 dst=198.51.100.1 type=0 code=0 id=40001 packets=1 bytes=84 mark=0 delta-time=1 use=1 id=1103345607'

function parsed(line: string): TrackedLine {
  const tracked = parseTrackedLine(line)
  if (tracked === undefined) throw new Error(`not taken: ${line}`)
  return tracked
}

test('an event has its time, both directions, and what they carried where the kernel says it', (t) => {
  t.like(parsed(NEW), { event: 'NEW', time: 1_795_886_222_875, id: 1_666_060_726, protocol: 'udp' })
  t.like(parsed(DESTROY), {
    event: 'DESTROY',
    id: 1_889_838_627,
    original: { source: '192.0.2.9', destinationPort: 9090, packets: 4, bytes: 216 },
    reply: { source: '100.64.1.2', packets: 2, bytes: 117 },
    ageSeconds: 2
  })
})

test('the number of a connection is not the identifier of its echoes', (t) => {
  t.is(parsed(LISTED).id, 1_103_345_607)
  t.is(parsed(LISTED).original.sourcePort, 14_826)
})

test('an end of a connection is told as the world saw it, whoever began it', (t) => {
  const world = { localAddress: '198.51.100.1', remoteAddress: '192.0.2.9' }
  t.like(flowEnds(parsed(NEW))[0], {
    address: '100.64.1.2',
    ...world,
    localPort: 40_010,
    remotePort: 53,
    begunBy: 'vserver'
  })
  const [inbound] = flowEnds(parsed(DESTROY))
  t.like(inbound, { address: '100.64.1.2', ...world, localPort: 9090, remotePort: 50_394, begunBy: 'remote' })
  t.deepEqual(
    [inbound?.sent, inbound?.received],
    [
      { packets: 2, bytes: 117 },
      { packets: 4, bytes: 216 }
    ]
  )
  t.like(flowEnds(parsed(LISTED))[0], { ...world, localPort: 40_001, remotePort: 0 })
})

test('a line of IPv6 is read as one of IPv4 is', (t) => {
  const inside = 'fd51:ce51:ce51:1::2'
  const ends = `src=${inside} dst=2001:db8::9`
  const line = `icmpv6   58 29 ${ends} type=128 code=0 id=14826 packets=1 bytes=104 src=2001:db8::9 dst=2001:db8::1 type=129 code=0 id=40001 packets=1 bytes=104 mark=0 use=1 id=1103345607`
  t.like(parsed(line), { protocol: 'icmp', id: 1_103_345_607 })
  const [end] = flowEnds(parsed(line))
  t.like(end, {
    address: inside,
    localAddress: '2001:db8::1',
    localPort: 40_001,
    remoteAddress: '2001:db8::9'
  })
  t.like(end, { begunBy: 'vserver', remotePort: 0, sent: { packets: 1, bytes: 104 } })
  t.deepEqual(flowEnds(parsed(line.replaceAll(inside, 'fd51:ce51:ce51:1::1'))), [])
})

test('connections of the node itself have no end here', (t) => {
  t.deepEqual(flowEnds(parsed(NEW.replaceAll('100.64.1.2', '100.128.1.2'))), [])
})

test('what is no line of conntrack’s is none, and no text takes long', (t) => {
  const broken = [
    '',
    'tcp',
    NEW.replace('src=100.64.1.2 ', ''),
    NEW.replace('sport=38277', 'sport=x'),
    NEW.replace('udp ', 'gre '),
    NEW.replace(' id=1666060726', ''),
    `${NEW}${' x'.repeat(1000)}`,
    NEW.replace('[NEW]', '[UPDATE]')
  ]
  for (const line of broken) t.is(parseTrackedLine(line), undefined, line)
  const number = numbersOf(7)
  for (let round = 0; round < 20_000; round++) {
    const line = [NEW, DESTROY, LISTED][round % 3] ?? ''
    const [from, to] = [number(line.length), number(line.length)]
    const cut = line.slice(0, from) + line.slice(to)
    t.notThrows(() => parseTrackedLine(cut))
  }
})

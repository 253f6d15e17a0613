/**
 * Ten thousand frames of each class of what a vserver must not send, and as many that it may: none of the former leave, all
 * are counted under their reason; and all of them leave once the checks are gone. `world` sees what reaches the other end of
 * the uplink; `behind` what gets past the check on the host's end, of which a chain behind it makes copies.
 */
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { run } from '../../../src/base/host-program.ts'
import { REFUSALS } from '../../../src/enforce/network/source-check.ts'
import { icmp, insideOf, Lab, PATIENCE, tcp, udp, type LineProgram, type Vserver } from './lab.ts'
import {
  inPieces,
  MARKS,
  ordinary,
  OTHERS,
  OWN,
  spoofClasses,
  translated,
  unfinished,
  type SpoofClass
} from './spoof-classes.ts'
import { dropped, gained, hex, minus, seen, snifferBehind, WIDE_SHAPING, type Count } from './spoof-counts.ts'

/** Of each class; `SLICENET_SPOOF_PACKETS` makes them fewer where the processor is emulated. */
const COUNT = Number(process.env.SLICENET_SPOOF_PACKETS ?? 10_000)
/** Enough of each class where all of it is seen. */
const CONTROL_COUNT = Math.min(COUNT, 1000)
/** More than the kernel has room for. */
const UNFINISHED_COUNT = 10_000
const lab = new Lab({ letter: 's', network: { shaping: WIDE_SHAPING } })
let sender: LineProgram
let neighbour: LineProgram
let world: LineProgram
let behind: LineProgram
let vserver: Vserver

const owned = ({ port, id }: { port: number; id: number }) => [tcp(port), udp(port), icmp(id)]

test.before(async () => {
  await lab.up()
  vserver = await lab.vserver('one', owned(OWN))
  const two = await lab.vserver('two', owned(OTHERS))
  behind = await snifferBehind(lab)
  sender = await lab.program(vserver.pid, 'spoof.py', 'eth0')
  neighbour = await lab.program(two.pid, 'spoof.py', 'eth0')
  world = await lab.program('world', 'spoof.py', 'up0')
})
test.after.always(() => lab.down())

const isNamed = (names: readonly string[], name: string): boolean => names.includes(name)

async function send(
  frames: readonly Buffer[],
  { how, pauseMs, count = COUNT }: Partial<SpoofClass> & { readonly count?: number } = {}
): Promise<number> {
  return sender.ask({
    op: 'send',
    frames: hex(frames),
    count,
    ...(how === undefined ? {} : { how }),
    ...(pauseMs === undefined ? {} : { pause: pauseMs / 1000 })
  })
}

test.serial(
  'nothing of any class leaves and all of it is counted, while as much that is right passes',
  async (t) => {
    const parties = { world: lab.worldAddress, node: lab.nodeAddress }
    const nodeBefore = (await lab.counters()).dropped['two']
    let counts = await dropped(lab)
    for (const each of spoofClasses(parties)) {
      const legitimate = each.legitimate ?? [ordinary(parties)]
      const sniffer = each.counted === 'arp' ? behind : world
      const before = [await seen(world), await seen(sniffer), await seen(behind)] as const
      const began = performance.now()
      const sent = await send([...each.frames, ...legitimate], each)
      const least = before[1].legitimate + COUNT
      const passed = minus(await seen(sniffer, undefined, { mark: MARKS.legitimate, least }), before[1])
      const leaked = minus(await seen(world), before[0]).spoof
      // What the node's table drops is an ordinary packet until then.
      const passing = isNamed(REFUSALS, each.counted) ? 0 : COUNT
      const all = { mark: MARKS.spoof, least: before[2].spoof + passing }
      const past = minus(await seen(behind, undefined, all), before[2]).spoof
      const after = await dropped(lab)
      const counted = gained(after, counts)
      counts = after
      const ms = Math.round(performance.now() - began)
      t.log(
        `${each.name}: sent ${COUNT}, leaked ${leaked}, counted ${JSON.stringify(counted)}; legitimate ${passed.legitimate}; ${ms} ms`
      )
      t.is(sent, COUNT * (each.frames.length + legitimate.length), each.name)
      t.is(leaked, 0, each.name)
      t.is(past, passing, each.name)
      t.deepEqual(counted, { [each.counted]: COUNT }, each.name)
      t.is(passed.legitimate, COUNT, each.name)
    }
    t.deepEqual((await lab.counters()).dropped['two'], nodeBefore, 'nothing is charged to the neighbour')
  }
)

test.serial('datagrams and echoes larger than the MTU arrive from ordinary sockets', async (t) => {
  const [, ...inside] = insideOf(vserver.pid)
  await lab.world.ask({ op: 'answer', port: 7000 })
  const ask = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
s.bind(("0.0.0.0", ${OWN.port}))
for _ in range(200):
  s.sendto(b"x" * 9000, ("${lab.worldAddress}", 7000))
  assert s.recvfrom(100)[0] == b"${lab.nodeAddress}:${OWN.port}"
print("all")`
  t.is((await run('nsenter', [...inside, '/usr/bin/python3', '-c', ask])).trim(), 'all')
  const ping = ['ping', '-c', '20', '-i', '0.01', '-s', '9000', lab.worldAddress]
  t.regex(await run('nsenter', [...inside, ...ping]), / 20 received/)
})

test.serial(
  'ordinary packets from a port of another slice or of the node leave from other ports',
  async (t) => {
    for (const each of translated({ world: lab.worldAddress, node: lab.nodeAddress })) {
      const { name, port } = each
      const [before, kept] = [await seen(world), await seen(world, port)]
      await send(each.frames, each)
      const { count = COUNT } = each
      const passed = minus(
        await seen(world, undefined, { mark: MARKS.spoof, least: before.spoof + count }),
        before
      )
      const leaked = minus(await seen(world, port), kept).spoof
      t.log(`${name}: sent ${count}, leaked ${leaked} from that port; translated ${passed.spoof}`)
      t.is(leaked, 0, name)
      t.is(passed.spoof, count, name)
    }
  }
)

test.serial(
  'pieces of datagrams whose last never comes do not leave, and keep nobody else from sending any, until they are not bounded',
  async (t) => {
    const parties = { world: lab.worldAddress, node: lab.nodeAddress }
    // The neighbour's datagrams, in pieces that leave its own end of its link.
    const datagrams = 500
    const frames = hex(inPieces(parties).map((frame) => ofNeighbour(frame)))
    const flood = async (): Promise<Count & { refused: number }> => {
      const [before, counts] = [await seen(world), await dropped(lab)]
      await sender.ask({
        op: 'send',
        frames: hex([unfinished(parties)]),
        count: UNFINISHED_COUNT,
        varied: true
      })
      await neighbour.ask({ op: 'send', frames, count: datagrams, varied: true })
      const wanted = { mark: MARKS.legitimate, least: before.legitimate + datagrams }
      const after = minus(await seen(world, undefined, wanted), before)
      return { ...after, refused: gained(await dropped(lab), counts)['fragment'] ?? 0 }
    }
    const bounded = await flood()
    // What still waits would count as the same pieces once more.
    const waiting = async (): Promise<number> =>
      Number(/FRAG: inuse (\d+)/.exec(await lab.onNode(['cat', '/proc/net/sockstat']))?.[1])
    for (let tries = 0; tries < 100 && (await waiting()) > 0; tries++) await delay(50)
    t.is(await waiting(), 0)
    const setting = (name: string, value: number): Promise<string> =>
      lab.onNode(['sh', '-c', `echo ${value} >/proc/sys/net/ipv4/${name}`])
    // As kernels begin.
    await setting('ipfrag_high_thresh', 4 * 1024 * 1024)
    await setting('ipfrag_time', 30)
    await lab.nft(
      'flush chain netdev slicenet judge_piece; add rule netdev slicenet judge_piece goto judge_options'
    )
    const unbounded = await flood()
    t.log({ sent: UNFINISHED_COUNT, datagrams, bounded, unbounded })
    t.is(bounded.spoof, 0)
    // An emulated processor does not send more than is allowed.
    t.true((bounded.refused > 0 || PATIENCE > 1) && bounded.refused < UNFINISHED_COUNT)
    t.is(bounded.legitimate, datagrams)
    t.is(unbounded.refused, 0)
    t.true(unbounded.legitimate < datagrams / 2)
  }
)

/** The same frame as vserver two would send it. */
function ofNeighbour(frame: Buffer): Buffer {
  const changed = Buffer.from(frame)
  for (const at of [5, 11]) changed.writeUInt8(2, at)
  // Source 100.64.2.2; the sender makes the header's checksum anew.
  changed.writeUInt8(2, 28)
  return changed
}

test.serial('without the checks every class is seen', async (t) => {
  const parties = { world: lab.worldAddress, node: lab.nodeAddress }
  await lab.nft(
    'flush chain netdev slicenet check; add rule netdev slicenet check accept; delete table ip slicenet; delete table inet slicenet'
  )
  for (const each of spoofClasses(parties)) {
    const sniffer = each.leaksTo === 'world' ? world : behind
    const before = await seen(sniffer)
    await send(each.frames, {
      count: CONTROL_COUNT,
      ...(each.how === undefined ? {} : { how: each.how })
    })
    const wanted = { mark: MARKS.spoof, least: before.spoof + CONTROL_COUNT }
    const leaked = minus(await seen(sniffer, undefined, wanted), before).spoof
    t.log(`${each.name}: sent ${CONTROL_COUNT}, seen by the ${each.leaksTo} ${leaked}`)
    t.is(leaked, CONTROL_COUNT, each.name)
  }
  for (const { name, frames, port } of translated(parties)) {
    const before = await seen(world, port)
    await send(frames, { count: CONTROL_COUNT })
    const leaked = minus(
      await seen(world, port, { mark: `${MARKS.spoof}:${port}`, least: before.spoof + CONTROL_COUNT }),
      before
    )
    t.log(`${name}: sent ${CONTROL_COUNT}, seen from that port ${leaked.spoof}`)
    t.is(leaked.spoof, CONTROL_COUNT, name)
  }
})

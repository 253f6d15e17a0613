/**
 * Frames of each class of what a vserver must not send over IPv6, and as many that it may, as spoof.test.ts has it of
 * IPv4: none of the former leave, all are counted under their reason; and all of them leave once the checks are gone.
 */
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { REFUSALS } from '../../../src/enforce/network/source-check.ts'
import { icmp, Lab, tcp, udp, type LineProgram } from './lab.ts'
import { MARKS, OTHERS, OWN, type SpoofClass } from './spoof-classes.ts'
import { ordinary6, spoofClasses6, translated6 } from './spoof-classes6.ts'
import { dropped, gained, hex, seen, snifferBehind, WIDE_SHAPING } from './spoof-counts.ts'

/** Ten thousand by night, as of IPv4. */
const COUNT = process.env['SLICENET_NIGHTLY'] === undefined ? 2000 : 10_000
const CONTROL_COUNT = 500
const lab = new Lab({ letter: 'y', hasSix: true, network: { shaping: WIDE_SHAPING } })
const parties = { world: lab.sixOf('world'), node: lab.sixOf('node') }
let sender: LineProgram
let world: LineProgram
let behind: LineProgram

const owned = ({ port, id }: { port: number; id: number }) => [tcp(port), udp(port), icmp(id)]

test.before(async () => {
  await lab.up()
  const vserver = await lab.vserver('one', owned(OWN))
  await lab.vserver('two', owned(OTHERS))
  behind = await snifferBehind(lab)
  sender = await lab.program(vserver.pid, 'spoof.py', 'eth0')
  world = await lab.program('world', 'spoof.py', 'up0')
  await settled()
})
test.after.always(() => lab.down())

/** Kernels tell which groups they listen to when a device comes up, which is counted too. */
async function settled(): Promise<void> {
  for (let quiet = 0, last = ''; quiet < 6;) {
    await delay(500)
    const now = JSON.stringify(await dropped(lab))
    quiet = now === last ? quiet + 1 : 0
    last = now
  }
}

const send = async (
  frames: readonly Buffer[],
  { how }: Partial<SpoofClass> = {},
  count = COUNT
): Promise<number> =>
  sender.ask({
    op: 'send',
    frames: hex(frames),
    count,
    ...(how === undefined ? {} : { how })
  })

test.serial(
  'nothing of any class leaves and all of it is counted, while as much that is right passes',
  async (t) => {
    const neighbour = (await lab.counters()).dropped['two']
    let counts = await dropped(lab)
    for (const each of spoofClasses6(parties)) {
      const legitimate = each.legitimate ?? [ordinary6(parties)]
      const before = [await seen(world), await seen(behind)] as const
      const sent = await send([...each.frames, ...legitimate], each)
      const least = before[0].legitimate + COUNT
      const passed = await seen(world, undefined, { mark: MARKS.legitimate, least })
      // What the node's table drops is an ordinary packet until then.
      const expected = (REFUSALS as readonly string[]).includes(each.counted) ? 0 : COUNT
      const copies = { mark: MARKS.spoof, least: before[1].spoof + expected }
      const past = (await seen(behind, undefined, copies)).spoof - before[1].spoof
      const after = await dropped(lab)
      const counted = gained(after, counts)
      counts = after
      t.log(
        `${each.name}: sent ${COUNT}, leaked ${passed.spoof - before[0].spoof}, counted ${JSON.stringify(counted)}; legitimate ${passed.legitimate - before[0].legitimate}`
      )
      t.is(sent, COUNT * 2, each.name)
      t.is(passed.spoof - before[0].spoof, 0, each.name)
      t.is(past, expected, each.name)
      t.deepEqual(counted, { [each.counted]: COUNT }, each.name)
      t.is(passed.legitimate - before[0].legitimate, COUNT, each.name)
    }
    t.deepEqual((await lab.counters()).dropped['two'], neighbour, 'nothing is charged to the neighbour')
  }
)

test.serial(
  'ordinary packets from a port of another slice or of the node leave from other ports',
  async (t) => {
    for (const { name, frames, port } of translated6(parties)) {
      const [before, kept] = [await seen(world), await seen(world, port)]
      await send(frames)
      const passed = await seen(world, undefined, { mark: MARKS.spoof, least: before.spoof + COUNT })
      t.is((await seen(world, port)).spoof, kept.spoof, name)
      t.is(passed.spoof - before.spoof, COUNT, name)
    }
  }
)

test.serial('without the checks every class is seen', async (t) => {
  await lab.nft(
    'flush chain netdev slicenet check; add rule netdev slicenet check accept; delete table ip6 slicenet; delete table inet slicenet'
  )
  for (const each of spoofClasses6(parties)) {
    const sniffer = each.leaksTo === 'world' ? world : behind
    const before = await seen(sniffer)
    await send(each.frames, each, CONTROL_COUNT)
    const wanted = { mark: MARKS.spoof, least: before.spoof + CONTROL_COUNT }
    const leaked = (await seen(sniffer, undefined, wanted)).spoof - before.spoof
    t.log(`${each.name}: sent ${CONTROL_COUNT}, seen by the ${each.leaksTo} ${leaked}`)
    t.is(leaked, CONTROL_COUNT, each.name)
  }
  for (const { name, frames, port } of translated6(parties)) {
    const before = await seen(world, port)
    await send(frames, {}, CONTROL_COUNT)
    const wanted = { mark: `${MARKS.spoof}:${port}`, least: before.spoof + CONTROL_COUNT }
    t.is((await seen(world, port, wanted)).spoof - before.spoof, CONTROL_COUNT, name)
  }
})

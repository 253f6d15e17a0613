import test from 'ava'
import { encodeCbor } from '../../src/wire/cbor.ts'
import { cborSize } from './cbor-size.ts'
import { Overlay, type Member, type OverlayInit } from './overlay.ts'

const SMALL = { seed: 1, nodes: 66, agents: 8, researchers: 4, regions: 4 }

async function settled(init: Partial<OverlayInit> = {}): Promise<Overlay> {
  const overlay = new Overlay({ ...SMALL, ...init })
  await overlay.start(60_000)
  return overlay
}

/** Three of ten die at once, whatever they are, and are started again. */
async function restartSome(overlay: Overlay): Promise<Member[]> {
  const some = overlay.members.filter((_member, index) => index % 10 < 3)
  for (const member of some) overlay.crash(member)
  await overlay.pass(2000)
  for (const member of some) void overlay.startPeer(member)
  return some
}

test('the same seed is the same history, byte for byte', async (t) => {
  const bytes = async (seed: number): Promise<number[]> => {
    const overlay = await settled({ seed, lossPermille: 20 })
    return overlay.members.map(({ station }) => station.bytes)
  }
  const [first, again, other] = [await bytes(7), await bytes(7), await bytes(8)]
  t.deepEqual(first, again)
  t.notDeepEqual(first, other)
})

test('every live node is known to the agents of its region 30 s after three of ten peers restarted', async (t) => {
  for (const seed of [1, 2, 3]) {
    const overlay = await settled({ seed })
    t.is(overlay.recall(), 1)
    await restartSome(overlay)
    await overlay.pass(30_000)
    t.true(overlay.recall() >= 0.99, `seed ${seed}: ${overlay.recall()}`)
  }
})

test('with a tenth of all messages lost as well; without exchange that is too much', async (t) => {
  const recall = async (init: Partial<OverlayInit>): Promise<number> => {
    const overlay = await settled({ lossPermille: 100, ...init })
    await restartSome(overlay)
    await overlay.pass(30_000)
    return overlay.recall()
  }
  const [all, gossipOnly] = [await recall({}), await recall({ without: ['pull'] })]
  t.true(all >= 0.99, String(all))
  t.true(gossipOnly < 0.9, String(gossipOnly))
})

test('two parts that were cut off from each other forget each other and find together again', async (t) => {
  const overlay = await settled()
  overlay.network.cut(({ index }) => index % 2 === 0)
  await overlay.pass(240_000)
  const apart = overlay.recall()
  t.true(apart < 0.8, String(apart))
  overlay.network.mend()
  await overlay.pass(60_000)
  t.true(overlay.recall() >= 0.99, String(overlay.recall()))
})

test('a node that stops, dies, or loses its machine is gone well before its advert ends', async (t) => {
  const overlay = await settled()
  const [leaving, dying, unplugged] = overlay.ofRole('node')
  if (leaving === undefined || dying === undefined || unplugged === undefined)
    throw new Error('there are more')
  void overlay.stop(leaving)
  overlay.crash(dying)
  overlay.crash(unplugged, { silently: true })
  await overlay.pass(2000)
  t.false(overlay.isListed(leaving))
  await overlay.pass(18_000)
  t.false(overlay.isServed(dying))
  await overlay.pass(80_000)
  t.false(overlay.isServed(unplugged))
  await overlay.pass(30_000)
  for (const node of [dying, unplugged]) t.false(overlay.isListed(node))
})

test('without anybody calling after it, a dead node stays until its advert ends', async (t) => {
  const overlay = await settled({ without: ['presence'] })
  const [dying] = overlay.ofRole('node')
  if (dying === undefined) throw new Error('there are more')
  overlay.crash(dying)
  await overlay.pass(60_000)
  t.true(overlay.isServed(dying))
})

test('a peer whose bootstrap peers are gone rejoins by those it knew; one that forgets them does not', async (t) => {
  for (const forgetful of [false, true]) {
    const overlay = await settled({ forgetful })
    const boots = overlay.members.slice(0, 3)
    for (const boot of boots) overlay.crash(boot)
    const researcher = overlay.ofRole('researcher').find((member) => !boots.includes(member))
    if (researcher === undefined) throw new Error('there are more')
    await overlay.pass(10_000)
    overlay.crash(researcher)
    await overlay.pass(2000)
    void overlay.startPeer(researcher)
    await overlay.pass(60_000)
    const known = researcher.peer?.directory.entries().length ?? 0
    if (forgetful) t.is(known, 0)
    else t.true(known > SMALL.nodes / 2, String(known))
  }
})

test('the smallest meshes hold together: two and three peers, whoever restarts', async (t) => {
  for (const researchers of [0, 1]) {
    const overlay = await settled({ nodes: 1, agents: 1, researchers, regions: 1 })
    t.is(overlay.recall(), 1)
    for (const member of overlay.members) {
      overlay.crash(member)
      await overlay.pass(1000)
      void overlay.startPeer(member)
      await overlay.pass(40_000)
      t.is(overlay.recall(), 1, member.role)
      for (const { peer } of overlay.ofRole('researcher'))
        t.is(peer?.directory.entries().length, 2, member.role)
    }
  }
})

test('the bytes of a message are counted as they are', (t) => {
  const values = [
    {},
    { method: 'pull', params: { after: '', through: null, digest: [['key', 1_767_225_600_000]] } },
    { a: [0, 23, 24, 255, 256, 65_535, 65_536, 4_294_967_295, 4_294_967_296, -1, -25] },
    { bytes: new Uint8Array(300), text: 'ü'.repeat(40), yes: true, no: null }
  ]
  for (const value of values) t.is(cborSize(value), encodeCbor(value).length)
})

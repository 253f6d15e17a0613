/** How frames come to the source check: by a chain of each link's own, and, where the kernel can, by one for many names. */
import test from 'ava'
import { SourceHooks } from '../../../src/enforce/network/source-hooks.ts'
import { Lab, PATIENCE, tcp, udp, type Seen, type Vserver } from './lab.ts'
import { FIRST_PLACE, NftInPlace } from './nft-in-place.ts'

/** Of one base chain. */
const LINKS_PER_CHAIN = 64
const SPOOFED_PORT = 5999

const lab = new Lab({ letter: 'k' })
let place: NftInPlace
let one: Vserver

/** As a kernel that hooks only devices that are there, unless it is told otherwise. */
const BY_DEVICE = `
name=$(printf '%s' "$input" | sed -n 's/.*slicenet_probe hooked.*"\\(.*\\)".*/\\1/p')
if [ ! -e ${FIRST_PLACE}/by-name ] && [ -n "$name" ] && ! ip link show dev "$name" >/dev/null 2>&1; then
  echo 'Error: Could not process rule: No such file or directory' >&2
  exit 1
fi`

test.before(async () => {
  place = await NftInPlace.make(BY_DEVICE)
  await lab.up()
  await lab.killNode()
  await lab.nft('flush ruleset')
  // As a driver would name one.
  await lab.onNode(['ip', 'link', 'add', 'sl0', 'type', 'veth', 'peer', 'name', 'sl0peer'])
  await lab.startNode({}, place.through)
  await lab.world.ask({ op: 'answer', port: 7000 })
})
test.after.always(async () => {
  await lab.down()
  await place.remove()
})

/** Those that lead frames to the check. */
async function hooks(): Promise<string[]> {
  const shown = await lab.onNode(['nft', 'list', 'table', 'netdev', 'slicenet'])
  return [...shown.matchAll(/chain (\S+) \{\n\t\ttype filter hook ingress/g)].map(([, name = '']) => name)
}

/** What the world sees of packets that vserver `who` sends in another's name, and how many of them were refused. */
async function spoofed({ id, probe }: Vserver): Promise<{ seen: number; refused: number }> {
  const refused = async (): Promise<number> => (await lab.counters()).refused[id]?.source ?? 0
  const before = await refused()
  await lab.world.ask({ op: 'take', wait: 0 })
  const to = { dst: lab.worldAddress, sport: 80, dport: SPOOFED_PORT }
  await probe.ask({ op: 'send', proto: 'udp', src: '203.0.113.9', ...to, count: 20 })
  const seen = await lab.world.ask<Seen[]>({ op: 'take', wait: 0.2 * PATIENCE })
  return {
    seen: seen.filter(({ dport }) => dport === SPOOFED_PORT).length,
    refused: (await refused()) - before
  }
}

async function isHeard({ probe }: Vserver, sport: number): Promise<boolean> {
  const answer = await probe.ask({ op: 'ask', host: lab.worldAddress, port: 7000, sport })
  return answer === `${lab.nodeAddress}:${sport}`
}

test.serial('each link has a chain of its own, which goes with it', async (t) => {
  one = await lab.vserver('one', [tcp(9000), udp(9000)])
  const two = await lab.vserver('two', [udp(9001)])
  t.deepEqual((await hooks()).sort(), ['sl1', 'sl2'])
  for (const [vserver, port] of [[one, 9000] as const, [two, 9001] as const]) {
    t.deepEqual(await spoofed(vserver), { seen: 0, refused: 20 })
    t.true(await isHeard(vserver, port))
  }
  await lab.ask({ op: 'detach', id: 'two' })
  t.deepEqual(await hooks(), ['sl1'])
})

test.serial('one that is left without its link goes at the next start', async (t) => {
  const three = await lab.vserver('three')
  await lab.killNode()
  await lab.endStandIn(three.pid)
  await lab.nft('add chain netdev slicenet sl3')
  await lab.startNode({}, place.through)
  t.deepEqual(await hooks(), ['sl1'])
  t.notRegex(await lab.onNode(['nft', 'list', 'chains']), /chain sl3/)
})

test.serial('names take the place of those at the next start, and nothing slips out meanwhile', async (t) => {
  await lab.world.ask({ op: 'take', wait: 0 })
  await place.say('by-name')
  await lab.killNode()
  const race = one.probe.ask<number>({
    op: 'race',
    device: 'eth0',
    wait: 1,
    seconds: 2 * PATIENCE,
    src: '203.0.113.9',
    dst: lab.worldAddress
  })
  await lab.startNode({}, place.through)
  t.deepEqual(await hooks(), ['links_from_0'])
  t.true((await race) > 100)
  const seen = await lab.world.ask<Seen[]>({ op: 'take', wait: 0.2 })
  t.deepEqual(
    seen.filter(({ dport }) => dport === SPOOFED_PORT),
    []
  )
  t.deepEqual(await spoofed(one), { seen: 0, refused: 20 })
  t.true(await isHeard(one, 9000))
})

test.serial(
  'a link that is none of those names brings the next, and a later daemon knows them',
  async (t) => {
    const pid = await lab.standIn()
    let last = ''
    for (let links = 0; links <= LINKS_PER_CHAIN && !(await hooks()).includes('links_from_64'); links++) {
      if (last !== '') await lab.ask({ op: 'detach', id: last })
      last = `more-${links}`
      await lab.ask({ op: 'attach', link: lab.link(last, pid, [udp(9002)]) })
    }
    const more = { id: last, pid, address: '', probe: await lab.probeIn(pid, 'eth0') }
    for (const isLater of [false, true]) {
      if (isLater) {
        await lab.killNode()
        await lab.startNode({}, place.through)
      }
      t.deepEqual((await hooks()).sort(), ['links_from_0', 'links_from_64'])
      for (const [vserver, port] of [[one, 9000] as const, [more, 9002] as const]) {
        t.deepEqual(await spoofed(vserver), { seen: 0, refused: 20 })
        t.true(await isHeard(vserver, port))
      }
    }
    // Without the node's tables, so that nothing but the check holds it back.
    await lab.nft('flush table ip slicenet; flush table inet slicenet')
    t.like(await spoofed(more), { seen: 0, refused: 20 })
    await lab.nft(
      'chain netdev slicenet links_from_64 { policy accept; }; flush chain netdev slicenet links_from_64'
    )
    const unchecked = await spoofed(more)
    t.is(unchecked.refused, 0)
    t.true(unchecked.seen > 0)
  }
)

test('no name stands twice, and every number has one', (t) => {
  const named = (hooks: SourceHooks): string[] =>
    Array.from({ length: 4095 }, (_, at) => hooks.lines([at + 1]))
      .map(([line = '']) => line)
      .filter((line, at, all) => all.indexOf(line) === at)
      .flatMap((line) => [...line.matchAll(/"(sl\d+)"/g)].map(([, name = '']) => name))
  const wanted = Array.from({ length: 4095 }, (_, at) => `sl${at + 1}`)
  t.deepEqual(named(new SourceHooks(true)), wanted)
  t.deepEqual(named(new SourceHooks(false)), wanted)
})

test('a chain is asked for until its lines were applied', (t) => {
  const hooks = new SourceHooks(true)
  t.not(hooks.missingLines(1).length, 0)
  hooks.stand([1])
  t.deepEqual(hooks.missingLines(63), [])
  t.not(hooks.missingLines(64).length, 0)
})

/** ICMP timestamps by identifier, as echo is; and the two other questions of ICMP, which leave no vserver. */
import test from 'ava'
import { icmp, Lab, type Seen, type Vserver } from './lab.ts'

const OWNED = 23_456
const [ASK, ANSWER] = [13, 14]
const STAMPS = { payload: 'xxxxxxxxxxxx' }
const lab = new Lab({ letter: 't' })
let one: Vserver
let two: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', [icmp(OWNED)])
  two = await lab.vserver('two')
})
test.after.always(() => lab.down())

/** What of it comes to the world, made by hand in a vserver. */
async function sent(from: Vserver, type: number, id = OWNED): Promise<Seen | undefined> {
  await lab.world.ask({ op: 'take', wait: 0 })
  await from.probe.ask({
    op: 'send',
    proto: 'icmp',
    src: from.address,
    dst: lab.worldAddress,
    type,
    id,
    ...STAMPS
  })
  const match = { proto: 'icmp', type }
  return (await lab.world.ask<Seen[]>({ op: 'take', match, least: 1, wait: 0.3 }))[0]
}

const isShared = (id = 0): boolean => id >= 40_000 && id < 61_000
const answerTo = async ({ probe }: Vserver): Promise<Seen | undefined> =>
  (await probe.ask<Seen[]>({ op: 'take', match: { type: ANSWER }, least: 1, wait: 0.5 }))[0]

test.serial(
  'a question keeps an owned identifier, another’s is changed, and both get their answer',
  async (t) => {
    const own = await sent(one, ASK)
    t.like(own, { src: lab.nodeAddress, id: OWNED, ok: true })
    t.like(await answerTo(one), { src: lab.worldAddress, id: OWNED, ok: true })
    const others = await sent(two, ASK)
    t.true(isShared(others?.id), `${others?.id}`)
    t.true(others?.ok)
    t.like(await answerTo(two), { src: lab.worldAddress, id: OWNED, ok: true })
  }
)

test.serial(
  'a question from the world reaches the owner of its identifier, and its answer goes back',
  async (t) => {
    const asked = { op: 'route', proto: 'icmp', src: lab.worldAddress, dst: lab.nodeAddress, type: ASK }
    await Promise.all([one.probe.ask({ op: 'take', wait: 0 }), lab.world.ask({ op: 'take', wait: 0 })])
    await lab.world.ask({ ...asked, ...STAMPS, id: OWNED })
    const [reached] = await one.probe.ask<Seen[]>({ op: 'take', match: { type: ASK }, least: 1, wait: 0.5 })
    t.like(reached, { src: lab.worldAddress, dst: one.address, id: OWNED })
    const back = { op: 'take', match: { type: ANSWER }, least: 1, wait: 0.5 }
    const [answer] = await lab.world.ask<Seen[]>(back)
    t.like(answer, { src: lab.nodeAddress, id: OWNED, ok: true })
    await lab.world.ask({ ...asked, ...STAMPS, id: OWNED + 1 })
    const none = { op: 'take', match: { type: ASK }, least: 1, wait: 0.2 }
    t.deepEqual(await one.probe.ask<Seen[]>(none), [])
  }
)

test.serial('from the node’s own address and from a neighbour a question reaches its owner', async (t) => {
  const node = await lab.probeOnNode()
  for (const [from, src] of [
    [two.probe, two.address],
    [node, lab.nodeAddress]
  ] as const) {
    await one.probe.ask({ op: 'take', wait: 0 })
    const asked = { op: 'route', proto: 'icmp', src, dst: lab.nodeAddress, type: ASK, ...STAMPS }
    await from.ask({ ...asked, id: OWNED })
    const seen = await one.probe.ask<Seen[]>({ op: 'take', match: { type: ASK }, least: 1, wait: 0.5 })
    t.is(seen.length, 1, src)
  }
})

test.serial('an answer that nobody asked for leaves by an owned identifier alone', async (t) => {
  t.like(await sent(one, ANSWER), { src: lab.nodeAddress, id: OWNED, ok: true })
  const before = (await lab.counters()).dropped['two']?.untracked ?? 0
  t.is(await sent(two, ANSWER), undefined)
  t.is(((await lab.counters()).dropped['two']?.untracked ?? 0) - before, 1)
})

test.serial('information and address mask are neither asked for nor told', async (t) => {
  const before = (await lab.counters()).dropped['one']?.untracked ?? 0
  for (const type of [15, 16, 17, 18]) t.is(await sent(one, type), undefined, `type ${type}`)
  t.is(((await lab.counters()).dropped['one']?.untracked ?? 0) - before, 4)
})

test.serial(
  'with rules for echo alone, nobody keeps an identifier, and what nobody asks for leaves',
  async (t) => {
    const table = await lab.onNode(['nft', '-a', 'list', 'table', 'ip', 'slicenet'])
    const handleIn = (chain: string, rule: RegExp): string => {
      const lines = table.slice(table.indexOf(`chain ${chain} {`)).split('\n')
      return / # handle (\d+)$/.exec(lines.find((line) => rule.test(line)) ?? '')?.[1] ?? ''
    }
    await lab.nft(
      [
        `delete rule ip slicenet outbound handle ${handleIn('outbound', /timestamp-request/)}`,
        `delete rule ip slicenet outward_checks handle ${handleIn('outward_checks', /info-request/)}`
      ].join('\n')
    )
    // Tracking remembers what was asked with the other identifier.
    await lab.onNode(['conntrack', '-F'])
    const own = await sent(one, ASK)
    t.true(isShared(own?.id), `${own?.id}`)
    t.truthy(await sent(one, 17, OWNED + 5))
  }
)

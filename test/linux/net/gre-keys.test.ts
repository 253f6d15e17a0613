import test from 'ava'
import { gre, Lab, type Seen, type Vserver } from './lab.ts'

const KEY = 0xfe_ed_be_ef
const lab = new Lab({ letter: 'k' })
let one: Vserver
let two: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', [gre(7), gre(KEY - 5, KEY)])
  two = await lab.vserver('two', [gre(8)])
})
test.after.always(() => lab.down())

const from = (vserver: Vserver, key: number, more: object = {}): object => ({
  op: 'send',
  proto: 'gre',
  src: vserver.address,
  dst: lab.worldAddress,
  key,
  ...more
})
const toNode = (key: number, more: object = {}): object => ({
  op: 'route',
  proto: 'gre',
  src: lab.worldAddress,
  dst: lab.nodeAddress,
  key,
  ...more
})
const take = (least = 1, match: object = { proto: 'gre' }): object => ({
  op: 'take',
  match,
  least,
  wait: 0.4
})
const atWorld = async (least = 1): Promise<Seen[]> => lab.world.ask(take(least))

test.serial(
  'packets with an owned key leave from the node’s address, of two slices to one peer',
  async (t) => {
    await lab.world.ask({ op: 'take', wait: 0 })
    for (const [vserver, key, more] of [
      [one, 7, {}],
      [two, 8, {}],
      [one, KEY, { greflags: 0x3000, payload: 'seq.and more' }]
    ] as const) {
      await vserver.probe.ask(from(vserver, key, more))
      const [seen, ...others] = await atWorld()
      t.deepEqual([seen?.src, seen?.key, seen?.ok, others.length], [lab.nodeAddress, key, true, 0])
    }
  }
)

test.serial('what comes with a key reaches its owner and nobody else', async (t) => {
  for (const [owner, other, key] of [
    [one, two, 7],
    [two, one, 8],
    [one, two, KEY - 5]
  ] as const) {
    await Promise.all([owner, other].map(({ probe }) => probe.ask({ op: 'take', wait: 0 })))
    await lab.world.ask(toNode(key))
    const [seen] = await owner.probe.ask<Seen[]>(take())
    t.deepEqual([seen?.src, seen?.dst, seen?.key], [lab.worldAddress, owner.address, key])
    t.deepEqual(await other.probe.ask({ op: 'take', match: { proto: 'gre' }, wait: 0.1 }), [])
  }
})

test.serial(
  'from the node itself a key reaches its owner, as from the owner’s own machine, until the rules are out',
  async (t) => {
    const node = await lab.probeOnNode()
    const reached = async (): Promise<Seen[]> => {
      await one.probe.ask({ op: 'take', wait: 0 })
      await node.ask({ ...toNode(7), src: lab.nodeAddress })
      return one.probe.ask<Seen[]>(take())
    }
    const [seen, ...others] = await reached()
    t.deepEqual(
      [seen?.src, seen?.dst, seen?.key, seen?.ok, others.length],
      [lab.nodeAddress, one.address, 7, true, 0]
    )
    await one.probe.ask({ op: 'take', wait: 0 })
    await one.probe.ask(from(one, 7, { dst: lab.nodeAddress }))
    const [itself] = await one.probe.ask<Seen[]>(take())
    t.deepEqual([itself?.dst, itself?.key], [one.address, 7])
    // A key that nobody has stays the node's own.
    await node.ask({ ...toNode(9), src: lab.nodeAddress })
    t.deepEqual(await one.probe.ask({ op: 'take', match: { proto: 'gre' }, wait: 0.1 }), [])
    await lab.nft('flush chain ip slicenet from_node_to_owner')
    t.deepEqual(await reached(), [])
    await lab.killNode()
    await lab.startNode()
  }
)

test.serial('the key of a tunnel of the node’s is nobody else’s', async (t) => {
  const add = ['ip', 'link', 'add', 'tun7', 'type', 'gre', 'local', lab.nodeAddress, 'key', '70']
  try {
    await lab.onNode(add)
  } catch (error) {
    t.log(`this kernel has no GRE tunnels: ${String(error)}`)
    t.pass()
    return
  }
  const wanted = lab.link('two', two.pid, [gre(8), gre(70)])
  const taken = await t.throwsAsync<Error & { code: string }>(lab.ask({ op: 'attach', link: wanted }))
  t.is(taken?.code, 'PORT_IN_USE')
  t.regex(taken?.message ?? '', /gre\/70 is in use by a tunnel of the node/)
  await lab.onNode(['ip', 'link', 'del', 'tun7'])
  await t.notThrowsAsync(lab.ask({ op: 'attach', link: wanted }))
  await lab.ask({ op: 'attach', link: lab.link('two', two.pid, [gre(8)]) })
})

test.serial('an ICMP error about such a packet reaches the owner of the key', async (t) => {
  await one.probe.ask({ op: 'take', wait: 0 })
  const address = (text: string): string => Buffer.from(text.split('.').map(Number)).toString('hex')
  const header = `4500002000000000402f0000${address(lab.nodeAddress)}${address('198.19.0.9')}`
  const error = { op: 'route', proto: 'icmp', src: lab.worldAddress, dst: lab.nodeAddress, type: 11 }
  for (const key of ['00000007', '00000008']) {
    await lab.world.ask({ ...error, body: `${header}20000800${key}` })
  }
  t.is((await one.probe.ask<Seen[]>(take(2, { type: 11 }))).length, 1)
})

test.serial(
  'other keys, versions, no key and fragments are refused and counted, until the checks are out',
  async (t) => {
    const refused = async (): Promise<number> => {
      const { refused: byId } = await lab.counters()
      return Object.values(byId['one'] ?? {}).reduce((sum, count) => sum + count, 0)
    }
    const spoofed = [
      from(one, 8),
      from(one, 9),
      from(one, 7, { greflags: 0 }),
      from(one, 7, { greflags: 0x2001 }),
      from(one, 7, { greflags: 0xa000 }),
      from(one, 7, { greflags: 0x6000 }),
      // A later fragment, whose data look like a header.
      from(one, 7, { frag: 1 })
    ]
    await lab.world.ask({ op: 'take', wait: 0 })
    for (const packet of spoofed) {
      const before = await refused()
      await one.probe.ask(packet)
      t.is((await refused()) - before, 1, JSON.stringify(packet))
    }
    t.deepEqual(await lab.world.ask({ op: 'take', match: { number: 47 }, wait: 0.3 }), [])

    // The node's table holds another's key back by itself as well.
    await lab.nft('flush chain netdev slicenet check; add rule netdev slicenet check accept')
    const { drops } = await lab.counters()
    await one.probe.ask(from(one, 8))
    t.deepEqual(await lab.world.ask({ op: 'take', match: { number: 47 }, wait: 0.2 }), [])
    t.is((await lab.counters()).drops.untracked - drops.untracked, 1)
    await lab.nft(
      'flush chain ip slicenet outward_gre; flush chain ip slicenet leaving; add rule ip slicenet leaving iifname "sl*" ip saddr set ' +
        lab.nodeAddress
    )
    await one.probe.ask(from(one, 8))
    await one.probe.ask(from(one, 7, { greflags: 0 }))
    t.is((await lab.world.ask<Seen[]>({ op: 'take', match: { number: 47 }, least: 2, wait: 0.3 })).length, 2)
  }
)

test.serial('a key that is given up is another’s, and none is left behind', async (t) => {
  await lab.killNode()
  await lab.startNode()
  const wanted = lab.link('two', two.pid, [gre(7)])
  const taken = await t.throwsAsync<Error & { code: string }>(lab.ask({ op: 'attach', link: wanted }))
  t.is(taken?.code, 'PORT_IN_USE')
  t.regex(taken?.message ?? '', /gre\/7 is in use by vserver one/)
  await lab.ask({ op: 'attach', link: lab.link('one', one.pid) })
  await lab.ask({ op: 'attach', link: wanted })
  await lab.world.ask({ op: 'take', wait: 0 })
  await one.probe.ask(from(one, 7))
  await two.probe.ask(from(two, 7))
  t.is((await atWorld(2)).length, 1)
  await lab.ask({ op: 'detach', id: 'one' })
  await lab.ask({ op: 'detach', id: 'two' })
  for (const set of [
    'set ip slicenet gre_owned',
    'map ip slicenet gre_owner',
    'set netdev slicenet gre_keys'
  ]) {
    t.notRegex(await lab.onNode(['nft', 'list', ...set.split(' ')]), /elements/)
  }
})

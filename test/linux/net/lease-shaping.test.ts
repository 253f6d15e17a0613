import { setTimeout as delay } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import { DEFAULT_SHAPING } from '../../../src/enforce/network/rates.ts'
import type { Shaping } from '../../../src/ticket/shaping.ts'
import { Lab, type Vserver } from './lab.ts'

const MEGABIT = 1_000_000
const POLICY_BPS = 512_000
const NARROW_BPS = 128_000
const lab = new Lab({
  letter: 'q',
  network: {
    rootBps: 8 * MEGABIT,
    nodeBps: 0.1 * MEGABIT,
    shaping: { ...DEFAULT_SHAPING, icmpBps: POLICY_BPS, optionsBps: POLICY_BPS, egressShareMax: 4 }
  }
})
let one: Vserver
let two: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one')
  two = await lab.vserver('two')
})
test.after.always(() => lab.down())

/** Leases the same virtual machine by a ticket that says this, or nothing. */
const lease = async ({ id, pid }: Vserver, shaping?: Shaping): Promise<unknown> =>
  lab.ask({ op: 'attach', link: { ...lab.link(id, pid, [], { egressBps: 0.1 * MEGABIT }), shaping } })

/** Bits a second that leave of each while both have more to send than they may. */
async function rates(flood: object, seconds: number): Promise<[number, number]> {
  await Promise.all([lab.settledBytes('one'), lab.settledBytes('two')])
  const all = { op: 'flood', host: lab.worldAddress, port: 7, pause: 0.004, ...flood }
  const sending = [one, two].map(({ probe }) => probe.ask({ ...all, seconds: seconds + 0.8 }))
  const read = async (): Promise<{ at: number; bytes: readonly number[] }> => {
    const bytes = await Promise.all(['one', 'two'].map((id) => lab.ask<number>({ op: 'egressBytes', id })))
    return { at: performance.now(), bytes }
  }
  // What may leave at once has left.
  await delay(600)
  const first = await read()
  await delay(seconds * 1000)
  const last = await read()
  await Promise.all(sending)
  const [of, ofOther] = first.bytes.map(
    (bytes, at) => (((last.bytes[at] ?? 0) - bytes) * 8000) / (last.at - first.at)
  )
  return [of ?? 0, ofOther ?? 0]
}

const isNear = (value: number, wanted: number, part: number): boolean =>
  Math.abs(value - wanted) <= wanted * part

for (const { what, flood, field } of [
  { what: 'ICMP', flood: { kind: 'icmp' }, field: 'icmpBps' },
  { what: 'packets with IP options', flood: { options: true }, field: 'optionsBps' }
] as const) {
  test.serial(`a ticket narrows ${what} of its vserver, and of no neighbour`, async (t) => {
    await Promise.all([lease(one, { [field]: NARROW_BPS }), lease(two)])
    const [narrowed, neighbour] = await rates(flood, 2)
    // The same vserver without it.
    await lease(one)
    const [free] = await rates(flood, 2)
    t.log({ narrowed, neighbour, free })
    t.true(isNear(narrowed, NARROW_BPS, 0.1))
    t.true(isNear(neighbour, POLICY_BPS, 0.1))
    t.true(isNear(free, POLICY_BPS, 0.1))
  })
}

test.serial('a ticket that allows more than the policy is held to the policy', async (t) => {
  await lease(one, { icmpBps: 10 * POLICY_BPS })
  const [held] = await rates({ kind: 'icmp' }, 1)
  t.log({ held })
  t.true(isNear(held, POLICY_BPS, 0.15))
})

test.serial('a ticket narrows how many destinations may be new in a minute', async (t) => {
  const scan = async (vserver: Vserver, net: string): Promise<number> => {
    const before = (await lab.counters()).dropped[vserver.id]?.destinations ?? 0
    await vserver.probe.ask({ op: 'scan', net, count: 60, size: 1, pause: 0.002 })
    return 60 - ((await lab.counters()).dropped[vserver.id]?.destinations ?? 0) + before
  }
  await Promise.all([lease(one, { destinationsPerMinute: 40 }), lease(two)])
  const [narrowed, neighbour] = [await scan(one, '198.18.200'), await scan(two, '198.18.200')]
  // Another number, and then none, each while the link stays as it is.
  await lease(one, { destinationsPerMinute: 80 })
  const twice = await scan(one, '198.18.201')
  await lab.killNode()
  await lab.startNode()
  const kept = await scan(one, '198.18.202')
  await lease(one)
  const free = await scan(one, '198.18.203')
  t.log({ narrowed, neighbour, twice, kept, free })
  t.true(narrowed >= 10 && narrowed < 20, 'a quarter at once')
  t.true(twice >= 20 && twice < 30)
  t.true(kept >= 20 && kept < 30, 'a restart of the daemon keeps it')
  t.deepEqual([neighbour, free], [60, 60])
})

/** Of each, how much more than its guarantee leaves on a full uplink; their ratio. */
async function sharedOut(t: ExecutionContext, first?: number, second?: number): Promise<number> {
  const shaping = (egressShare?: number): Shaping | undefined =>
    egressShare === undefined ? undefined : { egressShare }
  await Promise.all([lease(one, shaping(first)), lease(two, shaping(second))])
  const [less, more] = (await rates({}, 2)).map((bps) => bps - 0.1 * MEGABIT)
  t.log({ shares: [first, second], less, more })
  return (more ?? 0) / (less ?? 1)
}

test.serial('what is left is shared in proportion to shares, whatever is guaranteed', async (t) => {
  const [equal, thrice, capped] = [
    await sharedOut(t),
    await sharedOut(t, 1, 3),
    await sharedOut(t, undefined, 32)
  ]
  t.true(isNear(equal, 1, 0.08))
  t.true(isNear(thrice, 3, 0.08))
  t.true(isNear(capped, 4, 0.08), 'no share is larger than the policy’s largest')
})

test.serial('a guarantee gives no larger share of what is left', async (t) => {
  const guarantees = [0.2 * MEGABIT, 2 * MEGABIT] as const
  for (const [at, { id, pid }] of [one, two].entries()) {
    await lab.ask({ op: 'attach', link: lab.link(id, pid, [], { egressBps: guarantees[at] ?? 0 }) })
  }
  const [less, more] = await rates({}, 2)
  t.log({ less, more })
  t.true(isNear((more - guarantees[1]) / (less - guarantees[0]), 1, 0.1))
})

test.serial('what a lease says goes with its link', async (t) => {
  const narrow = { newDestinationsBps: 16_000, destinationsPerMinute: 40 }
  await lease(one, narrow)
  const table = async (): Promise<string> => lab.onNode(['nft', 'list', 'table', 'inet', 'slicenet'])
  const classes = await lab.onNode(['tc', 'class', 'show', 'dev', 'up0'])
  t.regex(classes, new RegExp(`htb 51ce:${planLink(1).newClass} .*ceil 16Kbit`))
  t.regex(await table(), /new_of_sl1/)
  await lab.ask({ op: 'detach', id: 'one' })
  t.notRegex(await table(), /new_of_/)
})

import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import type { Resources } from '../../../src/ticket/resources.ts'
import { Lab, PATIENCE, type Vserver } from './lab.ts'

/** What an emulated processor sends less of. */
const MEGABIT = Math.round(1_000_000 / PATIENCE)
const FLOOD_SECONDS = 0.8 * PATIENCE
const lab = new Lab({ letter: 'h' })
let one: Vserver
let two: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one')
  two = await lab.vserver('two')
})
test.after.always(() => lab.down())

const shape = async (vserver: Vserver, resources: Partial<Resources>): Promise<unknown> =>
  lab.ask({ op: 'attach', link: lab.link(vserver.id, vserver.pid, [], resources) })

/** Bytes that arrive at the world while a vserver sends as fast as it can. */
async function arriving(vserver: Vserver, port: number, options: object = {}): Promise<number> {
  await lab.world.ask({ op: 'count', port })
  await vserver.probe.ask({ op: 'flood', host: lab.worldAddress, port, seconds: FLOOD_SECONDS, ...options })
  return lab.world.ask({ op: 'counted', port })
}

/** Packets for which there was no room. */
const shapedAway = async ({ id }: Vserver): Promise<number> =>
  (await lab.ask<Record<string, number>>({ op: 'dropped', id }))['shaped'] ?? 0

const settled = async ({ id }: Vserver): Promise<number> => lab.settledBytes(id)

/** Bytes that leave through a vserver’s classes while it sends as fast as it can. */
async function leaving(vserver: Vserver, options: object): Promise<number> {
  const before = await settled(vserver)
  await vserver.probe.ask({
    op: 'flood',
    host: lab.worldAddress,
    port: 7,
    seconds: FLOOD_SECONDS,
    ...options
  })
  return (await lab.ask<number>({ op: 'egressBytes', id: vserver.id })) - before
}

test.serial('a cap holds, changes while traffic flows, and is gone with its queue', async (t) => {
  const flood = { pause: 0.0002 }
  const free = await arriving(one, 1001, flood)
  await shape(one, { egressBpsMax: 2 * MEGABIT })
  const capped = await arriving(one, 1002, flood)
  t.true((await shapedAway(one)) > 0)
  t.is(await shapedAway(two), 0)
  await shape(one, { egressBpsMax: 8 * MEGABIT })
  const raised = await arriving(one, 1003, flood)
  // A daemon would put it back.
  await lab.killNode()
  await lab.onNode(['tc', 'qdisc', 'del', 'dev', 'up0', 'root'])
  const unshaped = await arriving(one, 1004, flood)
  t.log({ free, capped, raised, unshaped })
  t.true(capped > 0 && capped * 5 < free)
  t.true(raised > capped * 2 && raised < capped * 6)
  t.true(unshaped > capped * 5)
  // The next start mends what an administrator took away.
  await lab.startNode()
  const mended = await arriving(one, 1005, flood)
  t.true(mended > 0 && mended < raised * 2)
})

test.serial('egress is counted for each vserver by itself', async (t) => {
  // Where rates are low the queue is too short for all at once.
  await shape(one, {})
  const before = await lab.ask<number>({ op: 'egressBytes', id: 'two' })
  const first = await settled(one)
  await leaving(one, { most: 60, seconds: 10 })
  const bytes = (await settled(one)) - first
  const dropped = await lab.ask<Record<string, number>>({ op: 'dropped', id: 'one' })
  t.true(bytes >= 60 * 1200 && bytes < 60 * 1300, `${bytes} ${JSON.stringify(dropped)}`)
  t.is(await lab.ask<number>({ op: 'egressBytes', id: 'two' }), before)
  await t.throwsAsync(lab.ask({ op: 'egressBytes', id: 'nobody' }), { code: 'NOT_FOUND' })
})

test.serial(
  'ICMP and packets with IP options have a bucket of their own, until they are no longer told apart',
  async (t) => {
    await shape(one, { egressBpsMax: 50 * MEGABIT })
    const data = await leaving(one, { kind: 'udp' })
    const echoes = await leaving(one, { kind: 'icmp' })
    const options = await leaving(one, { kind: 'udp', options: true })
    await lab.nft(
      'flush chain ip slicenet outward_far; add rule ip slicenet outward_far meta priority set ip saddr map @class'
    )
    const untold = await leaving(one, { kind: 'icmp' })
    t.log({ data, echoes, options, untold })
    t.true(echoes * 5 < data)
    t.true(options * 5 < data)
    t.true(untold > echoes * 5)
  }
)

/** Bytes that arrive of each in one second while both have more to send than there is. */
async function arrivingTogether(port: number): Promise<[number, number]> {
  await Promise.all([settled(one), settled(two)])
  // A slow pace that is still six times the root: the senders must not starve the kernel of time.
  const flood = { op: 'flood', host: lab.worldAddress, seconds: 2 * PATIENCE, pause: 0.004 }
  const sending = Promise.all([
    one.probe.ask({ ...flood, port }),
    two.probe.ask({ ...flood, port: port + 1 })
  ])
  // Only what arrives while both have packets waiting is compared.
  await delay(600 * PATIENCE)
  for (const each of [port, port + 1]) await lab.world.ask({ op: 'count', port: each })
  await delay(1000 * PATIENCE)
  const arrived: [number, number] = [
    await lab.world.ask<number>({ op: 'counted', port }),
    await lab.world.ask<number>({ op: 'counted', port: port + 1 })
  ]
  await sending
  return arrived
}

test.serial('below a full root each gets its guarantee, and equal shares without one', async (t) => {
  await lab.killNode()
  await lab.startNode({ rootBps: 8 * MEGABIT, nodeBps: 0.1 * MEGABIT })
  const together = async (first: number, second: number, port: number): Promise<[number, number]> => {
    await Promise.all([shape(one, { egressBps: first }), shape(two, { egressBps: second })])
    return arrivingTogether(port)
  }
  const [more, less] = await together(7 * MEGABIT, 0.5 * MEGABIT, 1101)
  const [left, right] = await together(0.5 * MEGABIT, 0.5 * MEGABIT, 1103)
  t.log({ more, less, left, right })
  t.true(more > less * 3)
  t.true(left < right * 2 && right < left * 2)
})

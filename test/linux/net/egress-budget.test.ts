import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import type { Resources } from '../../../src/ticket/resources.ts'
import { Lab, type Vserver } from './lab.ts'

const BUDGET_BYTES = 2_000_000
const TRICKLE = '16Kbit'
const lab = new Lab({ letter: 'b', network: { budgetIntervalMs: 200 } })
let one: Vserver
let two: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', [], { egressBytesPerDay: BUDGET_BYTES })
  two = await lab.vserver('two')
})
test.after.always(() => lab.down())

const flood = async (vserver: Vserver, seconds: number): Promise<number> => {
  const sent = async (): Promise<number> => lab.ask<number>({ op: 'egressBytes', id: vserver.id })
  const before = await sent()
  await vserver.probe.ask({ op: 'flood', host: lab.worldAddress, port: 7, seconds, pause: 0.0005 })
  return (await sent()) - before
}

const isNarrowed = async ({ id }: Vserver): Promise<boolean> => lab.ask({ op: 'isEgressNarrowed', id })

/** Whether the vserver of this index comes to have this cap. */
async function cap(index: number, expected: string): Promise<string> {
  let last = ''
  for (let round = 0; round < 100 && last !== expected; round++) {
    const shown = await lab.onNode(['tc', 'class', 'show', 'dev', 'up0'])
    const line = new RegExp(`^class htb 51ce:${planLink(index).vserverClass} .* ceil (\\S+)`, 'm')
    last = line.exec(shown)?.[1] ?? ''
    if (last !== expected) await delay(50)
  }
  return last
}

const renew = async (vserver: Vserver, resources: Partial<Resources>): Promise<unknown> =>
  lab.ask({ op: 'attach', link: lab.link(vserver.id, vserver.pid, [], resources) })

test.serial('who sends a day’s bytes is narrowed, and its neighbour goes on', async (t) => {
  t.false(await isNarrowed(one))
  const first = await flood(one, 2)
  const free = await flood(two, 2)
  t.is(await cap(1, TRICKLE), TRICKLE)
  const second = await flood(one, 1)
  t.log({ first, free, second })
  t.true(first >= BUDGET_BYTES * 0.5 && first <= BUDGET_BYTES * 1.1)
  t.true(free > BUDGET_BYTES * 2)
  t.true(second < 100_000)
  t.true(await isNarrowed(one))
  t.false(await isNarrowed(two))
  t.is(await cap(2, '10Gbit'), '10Gbit')
})

test.serial('it stays so over a crash of the daemon, also when the kernel has forgotten', async (t) => {
  await lab.killNode()
  await lab.startNode()
  t.is(await cap(1, TRICKLE), TRICKLE)
  t.true(await isNarrowed(one))
  await lab.killNode()
  await lab.onNode(['tc', 'qdisc', 'del', 'dev', 'up0', 'root'])
  await lab.startNode()
  t.is(await cap(1, TRICKLE), TRICKLE)
  t.true(await isNarrowed(one))
})

test.serial('a lease with more bytes a day ends it, and less begins it again', async (t) => {
  await renew(one, { egressBytesPerDay: 1e12 })
  t.is(await cap(1, '10Gbit'), '10Gbit')
  t.false(await isNarrowed(one))
  const sent = await flood(one, 1)
  t.log({ sent })
  t.true(sent > 500_000)
  await renew(one, { egressBytesPerDay: BUDGET_BYTES })
  t.is(await cap(1, TRICKLE), TRICKLE)
})

test.serial('without what is written of it a restart forgets it', async (t) => {
  await lab.killNode()
  await rm(join(lab.stateDirectory, 'egress.json'))
  await lab.startNode()
  t.false(await isNarrowed(one))
})

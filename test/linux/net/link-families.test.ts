/** What vservers that run are given when their node gets IPv6, and lose when it has none any more. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { run } from '../../../src/base/host-program.ts'
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import type { LinkRecord } from '../../../src/enforce/network/link-records.ts'
import type { PortRange } from '../../../src/ticket/ports.ts'
import { datagram6, framed6 } from './frames6.ts'
import { insideOf, Lab, tcp, udp, type LineProgram, type Seen, type Vserver } from './lab.ts'
import { until } from './until.ts'

const lab = new Lab({ letter: 'l', hasSix: true })
const NODE = lab.sixOf('node')
const WORLD = lab.sixOf('world')
/** What a program is told at once where there is no way. */
const NO_WAY = 'ENETUNREACH'
interface Party extends Vserver {
  readonly six: LineProgram
  readonly port: number
}
let one: Party
let two: Party
let world6: LineProgram

async function party(id: string, port: number, more: readonly PortRange[] = [], raw = false): Promise<Party> {
  const vserver = await lab.vserver(id, [udp(port), ...more], {}, { rawSockets: raw })
  return { ...vserver, six: await lab.program(vserver.pid, 'probe6.py', 'eth0'), port }
}

test.before(async () => {
  await lab.up()
  world6 = await lab.program('world', 'probe6.py', 'up0')
  await world6.ask({ op: 'answer', port: 7000 })
  await lab.world.ask({ op: 'answer', port: 7002 })
  await lab.killNode()
  await address('del')
  await lab.startNode()
  one = await party('one', 9090, [tcp(9091)], true)
  two = await party('two', 9400, [tcp(9401), udp(9402)])
})
test.after.always(() => lab.down())

const address = async (verb: 'add' | 'del'): Promise<unknown> =>
  lab.onNode(['ip', 'addr', verb, `${NODE}/64`, 'dev', 'up0', ...(verb === 'add' ? ['nodad'] : [])])
const ask = async ({ six, port }: Party): Promise<string> =>
  six.ask({ op: 'ask', host: WORLD, port: 7000, sport: port })
const hasSix = async (who: Party): Promise<boolean> => (await ask(who)) === `${NODE} ${who.port}`
const hasNoWay = async (who: Party): Promise<boolean> => (await ask(who)) === NO_WAY
const inside = async ({ pid }: Party, ...argv: readonly string[]): Promise<string> => {
  const [, ...enter] = insideOf(pid)
  return run('nsenter', [...enter, ...argv])
}

test.serial('vservers that run have all of IPv6 as soon as their node has it', async (t) => {
  t.true(await hasNoWay(one))
  t.true(await hasNoWay(two))
  await address('add')
  t.true(await until(async () => hasSix(one)))
  t.true(await until(async () => hasSix(two)))
  // Both ends know each other.
  const plan = planLink(1)
  t.regex(await inside(one, 'ip', '-6', 'neigh'), new RegExp(`${plan.gateway6} .*PERMANENT`))
  t.regex(await lab.onNode(['ip', '-6', 'neigh']), new RegExp(`${plan.address6} .*PERMANENT`))
  // Whoever calls an owned port reaches its owner; where that has raw sockets, its kernel is silent.
  await two.six.ask({ op: 'answer', port: 9402 })
  t.regex(await world6.ask<string>({ op: 'ask', host: NODE, port: 9402 }), new RegExp(`^${WORLD} `))
  t.is(await world6.ask({ op: 'connect', host: NODE, port: 9401 }), 'ECONNREFUSED')
  t.is(await world6.ask({ op: 'connect', host: NODE, port: 9091 }), 'timeout')
})

test.serial('what they send from then on is checked', async (t) => {
  const refused = async (): Promise<number> => (await lab.counters()).refused['one']?.source ?? 0
  const datagram = (src: string): string =>
    framed6(datagram6({ src, dst: WORLD }, { sport: one.port, dport: 99 }), planLink(1)).toString('hex')
  const before = await refused()
  await world6.ask({ op: 'take', wait: 0 })
  const frames = [datagram(planLink(2).address6), datagram(NODE), datagram(planLink(1).address6)]
  await one.six.ask({ op: 'send', frames })
  const seen = await world6.ask<Seen[]>({ op: 'take', match: { dport: 99 }, least: 2, wait: 0.3 })
  t.is(seen.length, 1)
  t.is((await refused()) - before, 2)
})

test.serial('they lose it as soon as it goes, and programs see that there is no way', async (t) => {
  const ask4 = { op: 'ask', host: lab.worldAddress, port: 7002, sport: 33_000 }
  const seen = await one.probe.ask<string>(ask4)
  await address('del')
  t.true(await until(async () => hasNoWay(one)))
  t.true(await until(async () => hasNoWay(two)))
  const left = async (): Promise<string> => lab.onNode(['ip', '-6', 'addr', 'show', 'scope', 'global'])
  t.true(await until(async () => !(await left()).includes('fd51:')))
  t.notRegex(await inside(one, 'ip', '-6', 'addr'), /fd51:/)
  t.notRegex(await inside(one, 'ip', '-6', 'neigh', 'show', 'nud', 'all'), /fd51:/)
  t.notRegex(await inside(one, 'ip', '-6', 'route'), /fd51:/)
  t.is(await one.probe.ask(ask4), seen, 'connections of IPv4 go on')
})

async function renameNamespace(index: number, name: string): Promise<string> {
  const path = join(lab.stateDirectory, 'links', `${index}.json`)
  const record = JSON.parse(await readFile(path, 'utf8')) as LinkRecord
  await writeFile(path, JSON.stringify({ ...record, namespace: name }))
  return record.namespace
}

test.serial('one that is not found, is gone or cannot be changed holds up no other', async (t) => {
  await lab.killNode()
  // The control: by its namespace it is found, or not at all.
  const name = await renameNamespace(2, 'net:[1]')
  await lab.startNode()
  const stubborn = await party('stubborn', 9500)
  await inside(stubborn, 'sh', '-c', 'echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6')
  const gone = await party('gone', 9600)
  await lab.endStandIn(gone.pid)
  await address('add')
  t.true(await until(async () => hasSix(one)))
  t.true(await hasNoWay(two))
  t.not(await ask(stubborn), `${NODE} 9500`)
  await lab.ask({ op: 'detach', id: 'gone' })
  // What went wrong with one is put right when it is attached again, as a change of its resources does.
  await inside(stubborn, 'sh', '-c', 'echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6')
  t.false(await hasSix(stubborn))
  await lab.ask({ op: 'attach', link: lab.link('stubborn', stubborn.pid, [udp(9500)]) })
  t.true(await hasSix(stubborn))
  await lab.ask({ op: 'detach', id: 'stubborn' })
  await lab.killNode()
  await renameNamespace(2, name)
  await lab.startNode()
  t.true(await hasSix(two), 'and one that is found again has it when a daemon starts')
})

test.serial('what came or went while no daemon ran is made up for at the next start', async (t) => {
  await lab.killNode()
  await address('del')
  await lab.startNode()
  t.true(await hasNoWay(one))
  await lab.killNode()
  await address('add')
  await lab.startNode()
  t.true(await hasSix(one))
  t.true(await hasSix(two))
})

test.serial('links that were made while the node had IPv6 turned off have it once it is on', async (t) => {
  const turn = async (value: '0' | '1'): Promise<unknown> =>
    lab.onNode(['tee', '/proc/sys/net/ipv6/conf/default/disable_ipv6'], value)
  await turn('1')
  t.true(await until(async () => hasNoWay(one)))
  const late = await party('late', 9700)
  t.true(await hasNoWay(late))
  await turn('0')
  t.true(await until(async () => hasSix(late)))
  t.true(await hasSix(one))
})

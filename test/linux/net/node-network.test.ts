import test from 'ava'
import { icmp, insideOf, Lab, PATIENCE, tcp, udp, type LineProgram, type Seen } from './lab.ts'
import { run } from '../../../src/base/host-program.ts'

const lab = new Lab({ letter: 'n' })
/** A start-up's rules, classes and devices, without numbers that count. */
let pristine = ''

test.before(async () => {
  await lab.up()
  pristine = await kernelState()
})
test.after.always(() => lab.down())

async function kernelState(): Promise<string> {
  const parts = await Promise.all([
    ...['ip', 'inet', 'netdev'].map(async (family) => lab.table(family, 'slicenet')),
    lab.onNode(['tc', 'class', 'show', 'dev', 'up0']),
    lab.onNode(['ip', '-o', 'link'])
  ])
  // The flows that wait in a fair queue are shown as classes of their own.
  return (
    parts
      .join('\n')
      .replace(/^class fq_codel .*\n/gm, '')
      // Whom vservers talked to is remembered for a while.
      .replace(/\tset destinations \{[^]*?\n\t\}\n/, '')
  )
}

test.serial('a detached link leaves nothing, and detaching again is no error', async (t) => {
  const vserver = await lab.vserver('one', [tcp(9000, 9010), udp(9000), icmp(7, 9)], { egressBps: 1_000_000 })
  t.not(await kernelState(), pristine)
  t.deepEqual(await lab.ask({ op: 'list' }), ['one'])
  await lab.ask({ op: 'detach', id: 'one' })
  await lab.ask({ op: 'detach', id: 'one' })
  t.is(await kernelState(), pristine)
  t.deepEqual(await lab.ask({ op: 'list' }), [])
  t.notRegex(await run('nsenter', [...insideOf(vserver.pid).slice(1), 'ip', '-o', 'link']), /eth0/)
})

test.serial(
  'a link goes by another name with all that it has, and gains and loses ports under it',
  async (t) => {
    const { pid, probe, address } = await lab.vserver('spare', [tcp(9000)])
    await probe.ask({ op: 'listen', port: 9000 })
    const before = await kernelState()
    await lab.ask({ op: 'rename', id: 'spare', to: 'one' })
    t.deepEqual(await lab.ask({ op: 'list' }), ['one'])
    t.is(await kernelState(), before)
    await t.throwsAsync(lab.ask({ op: 'rename', id: 'spare', to: 'two' }), { code: 'NOT_FOUND' })
    t.regex(await lab.world.ask<string>({ op: 'connect', host: lab.nodeAddress, port: 9000 }), /:\d+$/)

    await probe.ask({ op: 'listen', port: 9001 })
    t.deepEqual(await lab.ask({ op: 'attach', link: lab.link('one', pid, [tcp(9001)]) }), { address })
    t.regex(await lab.world.ask<string>({ op: 'connect', host: lab.nodeAddress, port: 9001 }), /:\d+$/)
    t.is(await lab.world.ask({ op: 'connect', host: lab.nodeAddress, port: 9000 }), 'ECONNREFUSED')
    await lab.ask({ op: 'detach', id: 'one' })
    t.is(await kernelState(), pristine)
  }
)

test.serial('an attach that fails leaves nothing and its ports free', async (t) => {
  const pid = await lab.standIn()
  const ports = [tcp(9000), icmp(7)]
  await run('nsenter', [
    ...insideOf(pid).slice(1),
    'ip',
    'link',
    'add',
    'eth0',
    'type',
    'veth',
    'peer',
    'name',
    'x0'
  ])
  await t.throwsAsync(lab.ask({ op: 'attach', link: lab.link('one', pid, ports) }), {
    code: 'HOST_PROGRAM_FAILED'
  })
  await t.throwsAsync(lab.ask({ op: 'attach', link: lab.link('one', 4_000_000, ports) }), {
    code: 'VSERVER_FAILED'
  })
  t.is(await kernelState(), pristine)
  t.deepEqual(await lab.ask({ op: 'list' }), [])
  await lab.vserver('two', ports)
  await lab.ask({ op: 'detach', id: 'two' })
})

test.serial(
  'attaching again changes nothing, and a vserver made anew under the same id is linked anew',
  async (t) => {
    const first = await lab.vserver('one', [tcp(9000)])
    await first.probe.ask({ op: 'listen', port: 9000 })
    const before = await kernelState()
    const link = lab.link('one', first.pid, [tcp(9000)])
    t.deepEqual(await lab.ask({ op: 'attach', link }), { address: first.address })
    t.is(await kernelState(), before)
    const second = await lab.vserver('one', [tcp(9000)])
    await second.probe.ask({ op: 'listen', port: 9000 })
    t.not(second.address, first.address)
    t.regex(await lab.world.ask<string>({ op: 'connect', host: lab.nodeAddress, port: 9000 }), /:\d+$/)
    await lab.ask({ op: 'detach', id: 'one' })
    t.is(await kernelState(), pristine)
  }
)

test.serial('vservers run on while the daemon is dead, and the next one finds them', async (t) => {
  const one = await lab.vserver('one', [udp(9000)])
  const two = await lab.vserver('two', [tcp(9001)])
  await one.probe.ask({ op: 'answer', port: 9000 })
  await one.probe.ask({ op: 'send', ether: 'other', count: 3 })
  const ask = { op: 'ask', host: lab.nodeAddress, port: 9000, sport: 5000 }
  t.regex(await lab.world.ask<string>(ask), /:5000$/)
  // A datagram to a range that is out of reach, and what the other one sent, whose number is free after it.
  for (const { probe, address } of [one, two]) {
    await probe.ask({
      op: 'send',
      proto: 'udp',
      src: address,
      dst: '10.1.2.3',
      sport: 9000,
      dport: 80,
      count: 4
    })
  }
  const [before, refused] = [await kernelState(), (await lab.counters()).refused['one']?.other]
  const dropped = await lab.ask<Record<string, number>>({ op: 'dropped', id: 'one' })
  t.is(dropped['denied'], 4)
  await lab.killNode()
  t.regex(await lab.world.ask<string>(ask), /:5000$/)
  // One of them dies meanwhile.
  await lab.endStandIn(two.pid)
  await lab.startNode()
  await lab.ask({ op: 'start' })
  t.deepEqual(await lab.ask({ op: 'list' }), ['one'])
  t.regex(await lab.world.ask<string>(ask), /:5000$/)
  t.is((await lab.counters()).refused['one']?.other, refused)
  t.deepEqual(await lab.ask({ op: 'dropped', id: 'one' }), dropped)
  t.not(await kernelState(), before)
  await t.throwsAsync(lab.ask({ op: 'remove' }), { code: 'BUSY' })
  await lab.ask({ op: 'detach', id: 'one' })
  t.is(await kernelState(), pristine)
})

test.serial('a device that no record knows is removed at start', async (t) => {
  await lab.killNode()
  await lab.onNode(['ip', 'link', 'add', 'sl77', 'type', 'veth', 'peer', 'name', 'sl78'])
  await lab.startNode()
  t.is(await kernelState(), pristine)
})

test.serial('no packet slips out while a link is being made', async (t) => {
  const pid = await lab.standIn()
  const racer: LineProgram = await lab.probeIn(pid, 'lo')
  const race = racer.ask<number>({
    op: 'race',
    device: 'eth0',
    wait: 30,
    seconds: 1.5 * PATIENCE,
    src: '203.0.113.9',
    dst: lab.worldAddress
  })
  await lab.ask({ op: 'attach', link: lab.link('one', pid) })
  const taken = await race
  t.true(taken > 100, `${taken} were taken`)
  const seen = await lab.world.ask<Seen[]>({ op: 'take', wait: 0.1 })
  t.deepEqual(
    seen.filter((each) => each.dport === 5999),
    []
  )
  t.true(((await lab.counters()).refused['one']?.source ?? 0) > 0)
  await lab.ask({ op: 'detach', id: 'one' })
})

test.serial('links are made at once without meeting', async (t) => {
  const pids = await Promise.all(Array.from({ length: 8 }, async () => lab.standIn()))
  const began = performance.now()
  const links = pids.map((pid, index) => lab.link(`v${index}`, pid, [tcp(9100 + index), icmp(100 + index)]))
  const made = await lab.ask<{ address: string }[]>({ op: 'attachAll', links })
  t.log(`${pids.length} links in ${Math.round(performance.now() - began)} ms`)
  t.is(new Set(made.map(({ address }) => address)).size, pids.length)
  for (let index = 0; index < pids.length; index++) await lab.ask({ op: 'detach', id: `v${index}` })
  t.is(await kernelState(), pristine)
})

test.serial('a node that is shut down for good takes its tables and its queue away', async (t) => {
  await lab.ask({ op: 'remove' })
  t.is((await lab.onNode(['nft', 'list', 'ruleset'])).trim(), '')
  t.notRegex(await lab.onNode(['tc', 'qdisc', 'show', 'dev', 'up0']), /htb/)
})

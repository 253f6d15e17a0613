import test from 'ava'
import { run } from '../../../src/base/host-program.ts'
import { insideOf, Lab, tcp, udp, type Seen, type Vserver } from './lab.ts'

const RST = 4
const lab = new Lab({ letter: 's' })
let one: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', [tcp(9200, 9210), udp(9200, 9210)], {}, { rawSockets: true })
  // A neighbour without raw sockets.
  await lab.vserver('plain', [tcp(7000), udp(7000)])
})
test.after.always(() => lab.down())

const knock = async (port: number): Promise<string> =>
  lab.world.ask({ op: 'connect', host: lab.nodeAddress, port, timeout: 0.3 })
const atWorld = async (match: object): Promise<Seen[]> =>
  lab.world.ask({ op: 'take', match, least: 1, wait: 0.3 })
/** A segment of a connection that nobody has. */
const stray = async (dport: number, flags: number): Promise<void> => {
  await lab.world.ask({ op: 'take', wait: 0 })
  const about = { proto: 'tcp', src: lab.worldAddress, dst: lab.nodeAddress, sport: 6001, dport, flags }
  await lab.world.ask({ op: 'route', ...about })
}
const datagramAnswers = async (port: number): Promise<number> => {
  await lab.world.ask({ op: 'take', wait: 0 })
  await lab.world.ask({ op: 'ask', host: lab.nodeAddress, port, timeout: 0.2 })
  return (await atWorld({ proto: 'icmp', type: 3 })).length
}

test.serial(
  'on owned ports that nobody listens on a kernel with raw sockets is silent, others answer',
  async (t) => {
    t.is(await knock(9200), 'timeout')
    t.is(await datagramAnswers(9200), 0)
    for (const flags of [1, 0x10, 0x12]) {
      await stray(9201, flags)
      t.deepEqual(await atWorld({ flags: RST }), [], `flags ${flags}`)
    }
    t.is(await knock(7000), 'ECONNREFUSED')
    t.is(await datagramAnswers(7000), 1)
  }
)

test.serial('a program answers a SYN by itself, and its kernel does not reset what follows', async (t) => {
  await stray(9202, 2)
  const [syn] = await one.probe.ask<Seen[]>({ op: 'take', match: { dport: 9202 }, least: 1, wait: 0.3 })
  t.is(syn?.flags, 2)
  const answer = { proto: 'tcp', src: one.address, dst: lab.worldAddress, sport: 9202, dport: 6001 }
  await one.probe.ask({ op: 'route', ...answer, flags: 0x12, seq: 100, ack: 2 })
  t.is((await atWorld({ sport: 9202, flags: 0x12 })).length, 1)
  await stray(9202, 0x10)
  t.deepEqual(await atWorld({ sport: 9202 }), [])
  // What it resets by itself leaves.
  await one.probe.ask({ op: 'route', ...answer, flags: RST, window: 0 })
  t.is((await atWorld({ sport: 9202, flags: RST })).length, 1)
})

test.serial(
  'an ordinary listener on another owned port works as ever, with the resets of its kernel',
  async (t) => {
    await one.probe.ask({ op: 'listen', port: 9205 })
    await one.probe.ask({ op: 'answer', port: 9205 })
    t.regex(await knock(9205), /:\d+$/)
    t.regex(await lab.world.ask<string>({ op: 'ask', host: lab.nodeAddress, port: 9205 }), /:\d+$/)
    await stray(9205, 0x10)
    t.is((await atWorld({ sport: 9205, flags: RST })).length, 1)
    // From any port to a closed one of somebody else, too.
    t.is(await one.probe.ask({ op: 'connect', host: lab.worldAddress, port: 9, sport: 9206 }), 'ECONNREFUSED')
  }
)

test.serial(
  'ports that come later are silent and those that went are not, until it is taken out',
  async (t) => {
    const link = (first: number): object => ({
      ...lab.link('one', one.pid, [tcp(first, 9220), udp(first, 9220)]),
      rawSockets: true
    })
    await lab.ask({ op: 'attach', link: link(9211) })
    t.is(await knock(9212), 'timeout')
    await run('nsenter', [
      ...insideOf(one.pid).slice(1),
      'nft',
      'delete',
      'table',
      'inet',
      'slicenet_silence'
    ])
    t.is(await knock(9212), 'ECONNREFUSED')
    t.is(await datagramAnswers(9212), 1)
    // The next look at the link puts it in place again.
    await lab.ask({ op: 'attach', link: link(9210) })
    t.is(await knock(9212), 'timeout')
  }
)

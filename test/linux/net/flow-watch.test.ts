import test from 'ava'
import type { Flow } from '../../../src/enforce/network/flow.ts'
import type { FlowLosses } from '../../../src/enforce/network/flow-watch.ts'
import { gre, icmp, Lab, tcp, udp, type LineProgram, type Seen, type Vserver } from './lab.ts'

const lab = new Lab({ letter: 'w' })
let one: Vserver
let two: Vserver
let node: LineProgram

test.before(async () => {
  await lab.up()
  await lab.ask({ op: 'watchFlows' })
  one = await lab.vserver('one', [tcp(9090), udp(9090), icmp(77), gre(7)])
  two = await lab.vserver('two', [tcp(9191)])
  node = await lab.probeOnNode()
  await lab.world.ask({ op: 'listen', port: 7000 })
  await lab.world.ask({ op: 'answer', port: 7001 })
})
test.after.always(() => lab.down())

/** Flows as they are told, until there is one like this, or the time for it is over. */
async function flowsUntil(wanted: Partial<Flow>): Promise<Flow[]> {
  const found: Flow[] = []
  for (let round = 0; round < 40; round++) {
    found.push(...(await lab.ask<Flow[]>({ op: 'takeFlows', all: true })))
    if (found.some((flow) => matches(flow, wanted))) return found
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return found
}

function matches(flow: Flow, wanted: Partial<Flow>): boolean {
  return Object.entries(wanted).every(([name, value]) => flow[name as keyof Flow] === value)
}

async function oneFlow(wanted: Partial<Flow>): Promise<Flow> {
  const found = (await flowsUntil(wanted)).filter((flow) => matches(flow, wanted))
  const [flow] = found
  if (flow === undefined) throw new Error(`there is no flow like ${JSON.stringify(wanted)}`)
  return flow
}

test.serial('what a vserver begins is told as the world sees it, with what went both ways', async (t) => {
  const before = Date.now()
  const seen = await one.probe.ask<string>({ op: 'ask', host: lab.worldAddress, port: 7001 })
  const port = Number(seen.split(':')[1])
  t.true(port >= 40_000, seen)
  const flow = await oneFlow({ protocol: 'udp', localPort: port })
  t.like(flow, {
    vserver: 'one',
    localAddress: lab.nodeAddress,
    remoteAddress: lab.worldAddress,
    remotePort: 7001,
    begunBy: 'vserver',
    isTracked: true,
    sent: { packets: 1, bytes: 29 },
    received: { packets: 1, bytes: 28 + seen.length }
  })
  t.true(flow.first >= before - 1000 && flow.last >= flow.first && flow.last <= Date.now())
})

test.serial('what comes to an owned port is told as well, and who began', async (t) => {
  await one.probe.ask({ op: 'listen', port: 9090 })
  const seen = await lab.world.ask<string>({ op: 'connect', host: lab.nodeAddress, port: 9090, sport: 6123 })
  t.is(seen, `${lab.worldAddress}:6123`)
  const flow = await oneFlow({ protocol: 'tcp', localPort: 9090 })
  t.like(flow, { vserver: 'one', localAddress: lab.nodeAddress, remotePort: 6123, begunBy: 'remote' })
  t.true(flow.sent.packets >= 3 && flow.received.packets >= 3)
})

test.serial('two vservers that talk to each other have an end each', async (t) => {
  await one.probe.ask({ op: 'ask', host: lab.nodeAddress, port: 9191 })
  await two.probe.ask({ op: 'connect', host: lab.nodeAddress, port: 9090, sport: 9191 })
  const flows = await flowsUntil({ vserver: 'two', protocol: 'tcp', localPort: 9191 })
  t.true(flows.some((flow) => matches(flow, { vserver: 'two', remotePort: 9090, begunBy: 'vserver' })))
  t.true(flows.some((flow) => matches(flow, { vserver: 'one', localPort: 9090, begunBy: 'remote' })))
})

test.serial('an echo has its identifier for a port', async (t) => {
  await one.probe.ask({ op: 'send', proto: 'icmp', src: one.address, dst: lab.worldAddress, id: 77 })
  const owned = await oneFlow({ protocol: 'icmp', localPort: 77 })
  t.like(owned, { vserver: 'one', remotePort: 0, localAddress: lab.nodeAddress })
  await lab.world.ask({ op: 'take', wait: 0 })
  await two.probe.ask({ op: 'send', proto: 'icmp', src: two.address, dst: lab.worldAddress, id: 77 })
  const [echo] = await lab.world.ask<Seen[]>({
    op: 'take',
    match: { proto: 'icmp', type: 8 },
    least: 1,
    wait: 2
  })
  const shared = await oneFlow({ protocol: 'icmp', vserver: 'two' })
  t.is(shared.localPort, echo?.id ?? 0)
  t.not(shared.localPort, 77)
})

test.serial(
  'packets outside of any connection are counted, and the same ports of a connection are not',
  async (t) => {
    const fin = { op: 'send', proto: 'tcp', src: one.address, dst: lab.worldAddress, sport: 9090, dport: 81 }
    await lab.world.ask({ op: 'take', wait: 0 })
    await one.probe.ask({ ...fin, flags: 1, count: 3 })
    const left = await lab.world.ask<Seen[]>({
      op: 'take',
      match: { sport: 9090, dport: 81 },
      least: 3,
      wait: 2
    })
    t.is(left.length, 3)
    const flow = await oneFlow({ isTracked: false, remotePort: 81 })
    t.like(flow, { vserver: 'one', protocol: 'tcp', localPort: 9090, localAddress: lab.nodeAddress })
    t.deepEqual(flow.sent, { packets: 3, bytes: 3 * 40 })
    // From a port of nobody's they do not leave, and are not charged to anybody.
    await two.probe.ask({ ...fin, src: two.address, sport: 9092, flags: 1, count: 3 })
    const others = await lab.ask<Flow[]>({ op: 'takeFlows', all: true })
    t.false(others.some(({ vserver, isTracked }) => vserver === 'two' && !isTracked))
  }
)

test.serial('GRE and echo replies that nobody asked for are told with the addresses', async (t) => {
  const to = { op: 'send', src: one.address, dst: lab.worldAddress }
  await one.probe.ask({ ...to, proto: 'gre', key: 7, count: 2 })
  const about = { vserver: 'one', isTracked: false, localPort: 0, remotePort: 0 }
  const keyed = await oneFlow({ ...about, protocol: 'gre' })
  t.like(keyed, { localAddress: lab.nodeAddress, remoteAddress: lab.worldAddress })
  t.is(keyed.sent.packets, 2)
  await one.probe.ask({ ...to, proto: 'icmp', type: 0, id: 77, count: 3 })
  t.is((await oneFlow({ ...about, protocol: 'icmp' })).sent.packets, 3)
})

test.serial('one vserver does not take the room of all outside of connections', async (t) => {
  const many = 6000
  const fin = { op: 'send', proto: 'tcp', dst: lab.worldAddress, flags: 1 }
  const skipped = async (): Promise<number> => (await lab.ask<FlowLosses>({ op: 'flowLosses' })).skipped
  const before = await skipped()
  await one.probe.ask({ ...fin, src: one.address, sport: 9090, dport: 1001, dportLast: 1000 + many })
  await two.probe.ask({ ...fin, src: two.address, sport: 9191, dport: 82 })
  const flows = await flowsUntil({ vserver: 'two', isTracked: false, remotePort: 82 })
  t.true(flows.some((flow) => matches(flow, { vserver: 'two', isTracked: false, remotePort: 82 })))
  const noted = flows.filter((flow) => matches(flow, { vserver: 'one', isTracked: false, protocol: 'tcp' }))
  t.true(noted.length > 4000 && noted.length < 5000, String(noted.length))
  t.true((await skipped()) - before >= many - noted.length, 'and the others are told of')
})

test.serial('the node’s own connections are none of these', async (t) => {
  await node.ask({ op: 'ask', host: lab.worldAddress, port: 7001, sport: 5151 })
  await one.probe.ask({ op: 'ask', host: lab.worldAddress, port: 7001, sport: 9090 })
  const flows = await flowsUntil({ protocol: 'udp', localPort: 9090 })
  t.true(flows.some(({ localPort }) => localPort === 9090))
  t.false(flows.some(({ localPort }) => localPort === 5151))
})

test.serial('connections that end with their vserver are its own to the end', async (t) => {
  const three = await lab.vserver('three', [udp(9393)])
  await three.probe.ask({ op: 'ask', host: lab.worldAddress, port: 7001, sport: 9393 })
  await lab.ask({ op: 'detach', id: 'three' })
  const flow = await oneFlow({ vserver: 'three', isOpen: false })
  t.like(flow, { localPort: 9393, sent: { packets: 1, bytes: 29 } })
})

test.serial('after events were lost the table is read again, and it is told that they were', async (t) => {
  const before = await lab.ask<FlowLosses>({ op: 'flowLosses' })
  await lab.ask({ op: 'holdFlows' })
  const many = { op: 'sweep', host: lab.worldAddress, first: 20_000, count: 3000, sport: 9090 }
  await one.probe.ask(many)
  await lab.ask({ op: 'releaseFlows' })
  const after = await until(
    async () => lab.ask<FlowLosses>({ op: 'flowLosses' }),
    (now) => now.overruns > before.overruns
  )
  t.true(after.overruns > before.overruns)
  // The kernel has them all, whatever was read of their beginnings.
  const remotes = new Set<number>()
  await until(
    async () => {
      const flows = await lab.ask<Flow[]>({ op: 'takeFlows', all: true })
      for (const { protocol, localPort, remotePort } of flows) {
        if (protocol === 'udp' && localPort === 9090 && remotePort >= 20_000) remotes.add(remotePort)
      }
      return remotes.size
    },
    (size) => size === 3000
  )
  t.is(remotes.size, 3000)
})

async function until<T>(look: () => Promise<T>, isEnough: (value: T) => boolean): Promise<T> {
  for (let round = 0; ; round++) {
    const value = await look()
    if (isEnough(value) || round === 100) return value
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

test.serial('a daemon that begins anew finds the connections that go on, as old as they are', async (t) => {
  // Longer than it takes to start a daemon where the processor is emulated.
  const forget = (seconds: number): Promise<string> =>
    lab.onNode(['sh', '-c', `echo ${seconds} >/proc/sys/net/netfilter/nf_conntrack_udp_timeout`])
  await forget(300)
  await one.probe.ask({ op: 'ask', host: lab.worldAddress, port: 7001, sport: 9090 })
  const before = await oneFlow({ protocol: 'udp', localPort: 9090, remotePort: 7001 })
  await lab.killNode()
  await lab.startNode()
  await lab.ask({ op: 'watchFlows' })
  const after = await oneFlow({ protocol: 'udp', localPort: 9090, remotePort: 7001 })
  t.is(after.id, before.id)
  t.is(after.vserver, 'one')
  t.true(Math.abs(after.first - before.first) <= 3000)
  t.true(after.sent.packets >= before.sent.packets)
  await forget(30)
})

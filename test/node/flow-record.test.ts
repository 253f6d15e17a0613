/** That the record of flows says who had what, answers complaints, and is found out when it was cut or altered. */
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import type { Flow } from '../../src/enforce/network/flow.ts'
import type { FlowLosses } from '../../src/enforce/network/flow-watch.ts'
import { decodeEntries, encodeEntries, type LogEntry } from '../../src/node/flow-entries.ts'
import { FlowRecord, type FlowRecordInit } from '../../src/node/flow-record.ts'
import { findCulprit, readFlows, type Complaint, type FlowEntry } from '../../src/node/flow-search.ts'
import type { LeaseRecord } from '../../src/node/lease-table.ts'
import { MemoryStore } from '../../src/store/memory-store.ts'
import { logRootObject } from '../../src/ticket/log-root.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { HOUR, lease as leaseTo, makeKey } from '../ticket/fixtures.ts'

type Tenant = Pick<LeaseRecord, 'lease' | 'state'>

/** A node whose flows and leases the test makes up. */
class Node {
  readonly clock = new ManualClock()
  readonly key = makeKey()
  readonly store = new MemoryStore()
  readonly directory: string
  leases: Tenant[] = []
  flows: Flow[] = []
  isBroken = false
  losses: FlowLosses = { overruns: 0, skipped: 0, unreadable: 0 }
  record: FlowRecord
  #listener = (): void => {}

  constructor(directory: string, init: Partial<FlowRecordInit> = {}) {
    this.directory = directory
    this.record = this.#make(init)
  }

  #make(init: Partial<FlowRecordInit>): FlowRecord {
    const flows = {
      start: () => Promise.resolve(),
      stop: () => Promise.resolve(),
      take: () =>
        this.isBroken ? Promise.reject(new Error('broken')) : Promise.resolve(this.flows.splice(0)),
      losses: () => this.losses
    }
    const manager = {
      table: { all: () => this.leases },
      onChange: (listener: () => void) => {
        this.#listener = listener
        return () => {}
      }
    }
    const { clock, key, store } = this
    return new FlowRecord(
      { flows, manager, key, store, clock, logger: silentLogger },
      { directory: this.directory, bytesMax: 1 << 20, ...init }
    )
  }

  async start(): Promise<void> {
    await this.store.start()
    await this.record.start()
  }

  /** As a daemon that begins anew; what ran does not. */
  async restart(init = {}): Promise<void> {
    await this.record.stop()
    this.record = this.#make(init)
    await this.record.start()
  }

  /** Lets time pass, and what is to be written in it be written. */
  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 5000) {
      await this.clock.advance(5000)
      await this.record.verify()
    }
  }

  changed(): void {
    this.#listener()
  }

  async whois(complaint: Partial<Complaint>): ReturnType<typeof findCulprit> {
    const all = { time: this.clock.now(), withinMs: 1000, address: '192.0.2.9', port: 53, ...complaint }
    return findCulprit(this.record, all)
  }

  async all(): Promise<FlowEntry[]> {
    const found: FlowEntry[] = []
    for await (const each of readFlows(this.record, { since: 0, until: Infinity }))
      if (each.kind === 'flow') found.push(each)
    return found
  }
}

const test = anyTest as TestFn<{ directory: string }>
test.beforeEach(async (t) => {
  t.context = { directory: await mkdtemp(join(tmpdir(), 'slicenet-flows-')) }
})
test.afterEach.always(async (t) => rm(t.context.directory, { recursive: true, force: true }))

function flow(clock: ManualClock, changes: Partial<Flow> = {}): Flow {
  return {
    id: 'a1',
    vserver: 'v-1',
    protocol: 'udp',
    localAddress: '198.51.100.1',
    localPort: 40_010,
    remoteAddress: '192.0.2.9',
    remotePort: 53,
    begunBy: 'vserver',
    first: clock.now(),
    last: clock.now(),
    sent: { packets: 1, bytes: 60 },
    received: { packets: 0, bytes: 0 },
    isTracked: true,
    isOpen: false,
    ...changes
  }
}

function entryOf(clock: ManualClock): Omit<FlowEntry, 'kind' | 'flow'> {
  const { id: _id, sent, received, ...rest } = flow(clock)
  const [sentPackets, sentBytes] = [sent.packets, sent.bytes]
  const [receivedPackets, receivedBytes] = [received.packets, received.bytes]
  return { ...rest, sentPackets, sentBytes, receivedPackets, receivedBytes }
}

const ports = [{ protocol: 'tcp' as const, first: 20_000, last: 20_009 }]
const alice = makeKey()
const bob = makeKey()

test('a flow is told with the slice, the lease and the principal that had the vserver', async (t) => {
  const node = new Node(t.context.directory)
  const lease = leaseTo(node.key, alice, 1, { vserver: 'v-1', slice: 'mesh' })
  node.leases = [{ lease, state: 'active' }]
  await node.start()
  node.flows = [flow(node.clock)]
  await node.record.write({ all: false })
  const { flows } = await node.whois({})
  t.is(flows.length, 1)
  t.like(flows[0], { slice: 'mesh', lease: lease.id, principal: alice.principal, sentBytes: 60 })
  t.is((await node.whois({ port: 54 })).flows.length, 0, 'and not for another port')
  t.is((await node.whois({ address: '192.0.2.8' })).flows.length, 0, 'nor another address')
  t.is((await node.whois({ time: node.clock.now() + 5000 })).flows.length, 0, 'nor another time')
  t.is((await node.whois({ protocol: 'tcp' })).flows.length, 0, 'nor another protocol')
  t.is((await node.whois({ address: '198.51.100.1', port: 40_010 })).flows.length, 1)
  await node.record.stop()
})

test('ports that change hands are answered for by who had them then', async (t) => {
  const node = new Node(t.context.directory)
  const first = leaseTo(node.key, alice, 1, { vserver: 'v-1', ports })
  node.leases = [{ lease: first, state: 'active' }]
  await node.start()
  const [before] = [node.clock.now()]
  await node.clock.advance(HOUR / 4)
  node.leases = [{ lease: first, state: 'ended' }]
  node.changed()
  await node.clock.advance(10_000)
  const second = leaseTo(node.key, bob, 2, { vserver: 'v-2', ports, notBefore: node.clock.now() })
  node.leases = [...node.leases, { lease: second, state: 'active' }]
  node.changed()
  await node.record.write({ all: false })
  await node.clock.advance(10_000)
  const address = '198.51.100.1'
  const ask = async (time: number): Promise<string[]> => {
    const { owners } = await node.whois({ time, address, port: 20_005, protocol: 'tcp' })
    return owners.map(({ principal }) => principal)
  }
  t.deepEqual(await ask(before + 1000), [alice.principal])
  t.deepEqual(await ask(node.clock.now()), [bob.principal])
  t.deepEqual(await ask(node.clock.now() - 15_000), [], 'nobody had them between')
  const udp = await node.whois({ time: before, address, port: 20_005, protocol: 'udp' })
  t.deepEqual(udp.owners, [])
  await node.record.stop()
})

test('a lease with a large GRE key leaves the record readable, and is found by it', async (t) => {
  const node = new Node(t.context.directory)
  const keys = [{ protocol: 'gre' as const, first: 70_000, last: 4_294_967_295 }]
  const lease = leaseTo(node.key, alice, 1, { vserver: 'v-1', ports: keys })
  node.leases = [{ lease, state: 'active' }]
  await node.start()
  const address = '198.51.100.1'
  const { owners } = await node.whois({ address, port: 4_000_000_000, protocol: 'gre' })
  t.is(owners[0]?.principal, alice.principal)
  t.deepEqual((await node.whois({ address, port: 69_999, protocol: 'gre' })).owners, [])
  await node.record.stop()
})

test('a piece that cannot be read hides no other', async (t) => {
  const good = await encodeEntries([
    { kind: 'flow', ...entryOf(new ManualClock()), flow: 'good' } satisfies FlowEntry
  ])
  const record = (payload: Uint8Array): { writtenAt: number; payload: Uint8Array } => ({
    writtenAt: 1,
    payload
  })
  const pieces = [
    record(Uint8Array.of(1, 2, 3)),
    record(good),
    record(await encodeEntries([{} as FlowEntry]))
  ]
  const log = {
    async *pieces() {
      yield await Promise.resolve(pieces)
    }
  }
  const found: string[] = []
  for await (const each of readFlows(log, { since: 0, until: Infinity }))
    if (each.kind === 'flow') found.push(each.flow)
  t.deepEqual(found, ['good'])
})

const nodePort = { address: '198.51.100.1', port: 20_005, withinMs: 0 }
const holders = async (node: Node, time: number): Promise<string[]> =>
  (await node.whois({ ...nodePort, time })).owners.map(({ principal }) => principal)

test('a lease that is never finished has no port, and one that is gone from the table none any more', async (t) => {
  const node = new Node(t.context.directory)
  node.leases = [
    { lease: leaseTo(node.key, bob, 1, { vserver: 'v-2', ports }), state: 'making' },
    { lease: leaseTo(node.key, alice, 2, { vserver: 'v-1', ports }), state: 'active' }
  ]
  await node.start()
  t.deepEqual(await holders(node, node.clock.now()), [alice.principal])
  node.leases = []
  node.changed()
  await node.clock.advance(5000)
  await node.record.write({ all: false })
  t.deepEqual(await holders(node, node.clock.now()), [])
  await node.record.stop()
})

test('a lease that ended while no daemon ran has the port no longer than its term', async (t) => {
  const node = new Node(t.context.directory)
  const lease = leaseTo(node.key, alice, 1, { vserver: 'v-1', ports })
  node.leases = [{ lease, state: 'active' }]
  await node.start()
  await node.record.stop()
  await node.clock.advance(3 * HOUR)
  node.leases = [{ lease, state: 'ended' }]
  await node.record.start()
  t.deepEqual(await holders(node, lease.body.notAfter - 1), [alice.principal])
  t.deepEqual(await holders(node, lease.body.notAfter + 1), [])
  await node.record.stop()
})

test('an early end is the same after the daemon began anew', async (t) => {
  const node = new Node(t.context.directory)
  const lease = leaseTo(node.key, alice, 1, { vserver: 'v-1', ports })
  node.leases = [{ lease, state: 'active' }]
  await node.start()
  await node.clock.advance(10_000)
  node.leases = [{ lease, state: 'ended' }]
  node.changed()
  const end = node.clock.now()
  for (const _ of [1, 2]) {
    await node.clock.advance(20 * 60_000)
    await node.restart()
  }
  t.deepEqual(await holders(node, end - 1), [alice.principal])
  t.deepEqual(await holders(node, end + 1), [])
  await node.record.stop()
})

test('packets that are told of after a lease’s end are still its own, and of nobody known are told as such', async (t) => {
  const node = new Node(t.context.directory)
  const lease = leaseTo(node.key, alice, 1, { vserver: 'v-1' })
  node.leases = [{ lease, state: 'active' }]
  await node.start()
  node.leases = []
  await node.clock.advance(5000)
  node.flows = [flow(node.clock), flow(node.clock, { id: 'b2', vserver: 'v-9' })]
  await node.record.write({ all: false })
  const { flows } = await node.whois({})
  t.deepEqual(
    new Map(flows.map((each) => [each.vserver, each.principal])),
    new Map([
      ['v-1', alice.principal],
      ['v-9', undefined]
    ])
  )
  await node.record.stop()
})

test('a flow that goes on is one flow, with all that it carried, also after a new beginning', async (t) => {
  const node = new Node(t.context.directory)
  node.leases = [{ lease: leaseTo(node.key, alice, 1, { vserver: 'v-1' }), state: 'active' }]
  await node.start()
  const open = flow(node.clock, { isOpen: true })
  node.flows = [open]
  await node.record.write({ all: true })
  await node.restart()
  await node.clock.advance(60_000)
  // The kernel tells its age to the second.
  const later = { ...open, first: open.first + 900, last: node.clock.now(), sent: { packets: 9, bytes: 900 } }
  node.flows = [later, flow(node.clock, { first: node.clock.now() })]
  await node.record.write({ all: true })
  const { flows } = await node.whois({ withinMs: 60_000 })
  t.deepEqual(
    flows.map(({ sentBytes }) => sentBytes).sort((a, b) => a - b),
    [60, 900],
    'another with that number is another'
  )
  await node.record.stop()
})

test('a new file says who has what, also when what begins it are tenures', async (t) => {
  const node = new Node(t.context.directory, { fileBytesMax: 1000, bytesMax: 4000 })
  const old = { lease: leaseTo(node.key, alice, 1, { vserver: 'v-1', ports }), state: 'active' as const }
  node.leases = [old]
  await node.start()
  for (let seq = 2; seq < 32; seq++) {
    await node.clock.advance(1000)
    const other = leaseTo(node.key, bob, seq, { vserver: 'v-2', ports: [] })
    node.leases = [old, { lease: other, state: 'active' }]
    await node.record.write({ all: false })
  }
  t.true((await node.record.verify()).firstPiece > 1, 'the oldest made room')
  t.deepEqual(await holders(node, node.clock.now()), [alice.principal])
  await node.record.stop()
})

test('what found no room while the disk took nothing is told as skipped', async (t) => {
  const node = new Node(t.context.directory, { pendingMax: 2 })
  await node.start()
  node.flows = [1, 2, 3, 4, 5].map((number) => flow(node.clock, { id: `f${number}` }))
  await node.record.write({ all: false })
  await node.record.write({ all: false })
  const entries: LogEntry[] = []
  for await (const records of node.record.pieces(0)) {
    for (const { payload } of records) entries.push(...(await decodeEntries(payload)))
  }
  t.deepEqual(
    entries.map((entry) => (entry.kind === 'gap' ? entry.skipped : entry.kind)),
    ['flow', 'flow', 3]
  )
  await node.record.stop()
})

test('a time in which no daemon ran is told of, where a flow, a culprit or the whole record is asked for', async (t) => {
  const node = new Node(t.context.directory)
  await node.start()
  const unwatched = async (): Promise<unknown> => (await node.record.verify()).unwatched
  // Watched all the while, though nothing happens.
  await node.pass(10 * 60_000)
  await node.restart()
  t.deepEqual(await unwatched(), [])
  const from = node.clock.now()
  await node.record.stop()
  await node.clock.advance(5 * 60_000)
  await node.restart()
  const gap = { kind: 'unwatched', from, to: from + 5 * 60_000 } as const
  t.deepEqual(await unwatched(), [gap])
  t.deepEqual((await node.whois({ time: from + 60_000 })).unwatched, [gap])
  t.deepEqual((await node.whois({ time: from - 60_000 })).unwatched, [])
  const all: unknown[] = []
  for await (const each of readFlows(node.record, { since: from + 1, until: from + 2 })) all.push(each)
  t.deepEqual(all, [gap])
  t.deepEqual((await node.record.verify()).faults, [])
  await node.record.stop()
})

test('after a crash it is told from the last that was written on, a minute before at most', async (t) => {
  const node = new Node(t.context.directory)
  await node.start()
  node.leases = [{ lease: leaseTo(node.key, alice, 1), state: 'active' }]
  node.changed()
  await node.pass(10 * 60_000)
  const crashed = node.clock.now()
  const next = new Node(t.context.directory)
  await next.clock.advance(crashed + HOUR - next.clock.now())
  await next.start()
  const [gap] = (await next.record.verify()).unwatched
  t.is(gap?.to, crashed + HOUR)
  t.true(
    gap !== undefined && gap.from <= crashed && gap.from > crashed - 75_000,
    `${crashed - (gap?.from ?? 0)}`
  )
  await Promise.all([node.record.stop(), next.record.stop()].map((each) => each.catch(() => {})))
})

test('a record that could not begin is closed when it is stopped', async (t) => {
  const node = new Node(t.context.directory)
  node.isBroken = true
  await t.throwsAsync(node.start())
  await t.throwsAsync(node.record.stop(), { message: 'broken' })
  await t.throwsAsync(node.record.verify(), { message: /not open/ })
})

test('what was lost is in the record as well', async (t) => {
  const node = new Node(t.context.directory)
  await node.start()
  node.losses = { overruns: 1, skipped: 2, unreadable: 0 }
  await node.record.write({ all: false })
  await node.record.sign()
  t.is(node.record.root()?.body.head.sequence, 1)
  await node.record.write({ all: false })
  t.deepEqual(await node.record.verify().then(({ lastPiece }) => lastPiece), 1, 'once')
  await node.record.stop()
})

async function filled(directory: string, init = {}): Promise<Node> {
  const node = new Node(directory, init)
  node.leases = [{ lease: leaseTo(node.key, alice, 1, { vserver: 'v-1' }), state: 'active' }]
  await node.start()
  for (let number = 0; number < 20; number++) {
    node.flows = [flow(node.clock, { id: `f${number}`, localPort: 40_000 + number })]
    await node.record.write({ all: false })
    await node.clock.advance(1)
  }
  await node.record.sign()
  return node
}

const segmentsOf = async (directory: string): Promise<string[]> =>
  (await readdir(directory))
    .filter((name) => name.endsWith('.segment'))
    .sort()
    .map((name) => join(directory, name))

test('a record that nobody touched is as it was signed, over new beginnings', async (t) => {
  const node = await filled(t.context.directory)
  t.like(await node.record.verify(), { faults: [], firstPiece: 1, lastPiece: 21, roots: 1 })
  await node.restart()
  node.flows = [flow(node.clock)]
  await node.record.write({ all: false })
  t.like(await node.record.verify(), { faults: [], firstPiece: 1, lastPiece: 22 })
  t.is((await node.all()).length, 21)
  await node.record.stop()
})

test('a record is found out when one bit of it was altered, and what is sound of it is read on', async (t) => {
  const node = await filled(t.context.directory, { fileBytesMax: 1500 })
  const [first = ''] = await segmentsOf(t.context.directory)
  const bytes = await readFile(first)
  bytes[400] = (bytes[400] ?? 0) ^ 1
  await writeFile(first, bytes)
  const { faults } = await node.record.verify()
  t.true(faults.length > 0, faults.join())
  t.true((await node.all()).length >= 10)
  await node.record.stop()
})

test('a node whose last pieces were altered goes on, and the record stays found out', async (t) => {
  for (const offset of [90, 400]) {
    const node = await filled(join(t.context.directory, String(offset)))
    await node.record.stop()
    const [only = ''] = await segmentsOf(node.directory)
    const bytes = await readFile(only)
    bytes[offset] = (bytes[offset] ?? 0) ^ 1
    await writeFile(only, bytes)
    await node.record.start()
    node.flows = [flow(node.clock, { id: 'new' })]
    await node.record.write({ all: false })
    t.true((await node.record.verify()).faults.length > 0)
    t.true((await node.all()).some((each) => each.flow === 'new'))
    await node.record.stop()
  }
})

test('a record is found out when its end was cut off, whole pieces and all', async (t) => {
  const node = await filled(t.context.directory)
  const [only = ''] = await segmentsOf(t.context.directory)
  await node.record.stop()
  const whole = await readFile(only)
  // To a piece's end: nothing in the file says that there was more.
  let end = 84
  for (let piece = 0; piece < 15; piece++) end += 56 + whole.readUInt32BE(end + 36)
  await truncate(only, end)
  await node.record.start()
  const { faults } = await node.record.verify()
  t.true(
    faults.some((fault) => fault.startsWith('cut at its end')),
    faults.join()
  )
  // It does not heal by being written on to.
  for (let number = 0; number < 20; number++) {
    node.flows = [flow(node.clock)]
    await node.record.write({ all: false })
  }
  t.true((await node.record.verify()).faults.some((fault) => fault.startsWith('altered')))
  await node.record.stop()
})

test('a record is found out when its beginning was taken away, and what makes room is no fault', async (t) => {
  const node = await filled(t.context.directory, { fileBytesMax: 1000, bytesMax: 4000 })
  const { faults, firstPiece } = await node.record.verify()
  t.deepEqual(faults, [])
  t.true(firstPiece > 1, 'the oldest made room')
  const segments = await segmentsOf(t.context.directory)
  t.true(segments.length >= 3)
  await rm(segments[0] ?? '')
  t.true((await node.record.verify()).faults.some((fault) => fault.startsWith('cut at its beginning')))
  await node.record.stop()
})

test('a root of what has made room since is told not to cover what is kept', async (t) => {
  const node = new Node(t.context.directory, { fileBytesMax: 1000, bytesMax: 4000 })
  await node.start()
  node.flows = [flow(node.clock)]
  await node.record.write({ all: false })
  await node.record.sign()
  const early = logRootObject.open(node.record.root()?.bytes ?? new Uint8Array())
  t.deepEqual((await node.record.verify([early])).faults, [])
  for (let number = 0; number < 40; number++) {
    node.flows = [flow(node.clock, { id: `f${number}` })]
    await node.record.write({ all: false })
  }
  const { faults } = await node.record.verify([early])
  t.true(faults[0]?.startsWith('not covered by what is kept'), faults.join())
  await node.record.sign()
  const late = logRootObject.open(node.record.root()?.bytes ?? new Uint8Array())
  t.deepEqual((await node.record.verify([late])).faults, [])
  await node.record.stop()
})

test('all that is kept of a long time can be answered for, though the lease is older than that', async (t) => {
  const node = await filled(t.context.directory, { fileBytesMax: 1000, bytesMax: 4000 })
  const { owners } = await node.whois({ address: '198.51.100.1', port: 20_000 })
  t.is(owners[0]?.principal, alice.principal)
  await node.record.stop()
})

test('what makes room while it is read is left out', async (t) => {
  const node = await filled(t.context.directory, { fileBytesMax: 1000, bytesMax: 8000 })
  const reading = node.record.pieces(0)[Symbol.asyncIterator]()
  await reading.next()
  const before = await segmentsOf(t.context.directory)
  for (let number = 0; number < 20; number++) {
    node.flows = [flow(node.clock, { id: `g${number}` })]
    await node.record.write({ all: false })
  }
  const after = await segmentsOf(t.context.directory)
  t.true(
    before.slice(1, 3).some((path) => !after.includes(path)),
    'what is read next is gone'
  )
  let count = 0
  while ((await reading.next()).done !== true) count += 1
  t.true(count > 0)
  await node.record.stop()
})

test('a root that was kept elsewhere finds out a record that was made up anew with the node’s own key', async (t) => {
  const node = await filled(t.context.directory)
  const kept = logRootObject.open(node.record.root()?.bytes ?? new Uint8Array())
  t.deepEqual((await node.record.verify([kept])).faults, [])
  await node.record.stop()
  const other = await mkdtemp(join(tmpdir(), 'slicenet-flows-'))
  t.teardown(() => rm(other, { recursive: true, force: true }))
  const forged = new Node(other)
  await forged.start()
  forged.flows = [flow(forged.clock)]
  await forged.record.write({ all: false })
  await forged.record.sign()
  t.deepEqual((await forged.record.verify()).faults, [])
  t.true((await forged.record.verify([kept])).faults.length > 0)
  await forged.record.stop()
})

test('it is signed every hour', async (t) => {
  const node = new Node(t.context.directory)
  await node.start()
  node.flows = [flow(node.clock)]
  await node.clock.advance(5000)
  await node.record.verify()
  const before = node.record.root()?.body.notAfter ?? 0
  node.flows = [flow(node.clock)]
  await node.clock.advance(HOUR - 20_000)
  await node.record.verify()
  t.is(node.record.root()?.body.notAfter ?? 0, before)
  await node.clock.advance(30_000)
  await node.record.verify()
  t.true((node.record.root()?.body.notAfter ?? 0) > before)
  await node.record.stop()
})

test('a clock that was ahead once makes it sign no more often', async (t) => {
  const node = new Node(t.context.directory)
  node.clock.setWall(node.clock.now() + 5 * HOUR)
  await node.start()
  node.flows = [flow(node.clock)]
  await node.record.write({ all: false })
  await node.record.sign()
  node.clock.setWall(node.clock.now() - 5 * HOUR)
  const before = node.record.root()?.body.seq
  for (let turn = 0; turn < 3; turn++) {
    node.flows = [flow(node.clock)]
    await node.clock.advance(5000)
    await node.record.verify()
  }
  t.is(node.record.root()?.body.seq, before)
  await node.pass(HOUR)
  t.not(node.record.root()?.body.seq, before)
  await node.record.stop()
})

test('what a crash cut off is dropped, and no fault', async (t) => {
  const node = await filled(t.context.directory)
  const [only = ''] = await segmentsOf(t.context.directory)
  await node.record.stop()
  await writeFile(only, Buffer.concat([await readFile(only), Buffer.alloc(20)]))
  await node.record.start()
  node.flows = [flow(node.clock)]
  await node.record.write({ all: false })
  t.deepEqual((await node.record.verify()).faults, [])
  await node.record.stop()
})

import { multiaddr } from '@multiformats/multiaddr'
import test, { type ExecutionContext } from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { systemRandom } from '../../src/base/random.ts'
import { Measuring, type MeasuringInit, type Remembered } from '../../src/peer/measuring.ts'
import { UplinkMeter } from '../../src/node/uplink-meter.ts'
import { roundTripMicros } from '../../src/peer/round-trips.ts'
import { measureProtocol } from '../../src/protocol/measure-protocol.ts'
import { estimatedRttMs, type Coordinate } from '../../src/ticket/coordinate.ts'
import { slowRoad } from './fixtures/slow-road.ts'
import { connect, makePeer, newKey, nodeAdvert, stopPeer, until, type TestPeer } from './fixtures/network.ts'

interface MeasuringPeer extends TestPeer {
  readonly measuring: Measuring
}

function memory(): Remembered & { bytes: Uint8Array | undefined } {
  return {
    bytes: undefined,
    async load() {
      return this.bytes
    },
    async save(bytes) {
      this.bytes = bytes
    }
  }
}

async function startMeasuring(
  t: ExecutionContext,
  init: Partial<MeasuringInit> & { readonly remembered?: Remembered } = {}
): Promise<MeasuringPeer> {
  const peer = makePeer()
  const { host, directory } = peer
  const measuring = new Measuring(
    {
      host,
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      remembered: init.remembered ?? memory(),
      addressesOf: async (principal, { far, signal }) => {
        const entry = far ? await directory.lookup(principal, { signal }) : directory.get(principal)
        return entry?.advert.body.multiaddrs
      }
    },
    { intervalMs: 60_000, sink: false, ...init }
  )
  t.teardown(async () => {
    await measuring.stop()
    await stopPeer(peer)
  })
  await host.start()
  await directory.start()
  await measuring.start()
  return { ...peer, measuring }
}

test('a round trip to a peer is timed below the millisecond, also to one that is not connected', async (t) => {
  const [one, other] = await Promise.all([startMeasuring(t), startMeasuring(t)])
  await one.host.addAddresses(other.host.principal, other.host.multiaddrs())
  const components = { libp2p: () => one.host.libp2p, clock: systemClock, random: systemRandom }
  const options = { count: 5, signal: AbortSignal.timeout(20_000) }
  const micros = await roundTripMicros(components, other.host.principal, options)
  t.true(Number.isInteger(micros) && micros >= 1 && micros < 5_000_000, `${micros} µs`)
  await t.throwsAsync(roundTripMicros(components, newKey().principal, options), { code: 'PEER_UNREACHABLE' })
  const aborted = AbortSignal.abort(new Error('enough'))
  await t.throwsAsync(roundTripMicros(components, other.host.principal, { count: 1, signal: aborted }), {
    message: 'enough'
  })
})

test('connected peers place themselves by measuring each other, and keep the place over a restart', async (t) => {
  const remembered = memory()
  const init = { intervalMs: 300 }
  const one = await startMeasuring(t, { ...init, remembered })
  const others = await Promise.all([startMeasuring(t, init), startMeasuring(t, init)])
  t.is(one.measuring.coordinate(), undefined, 'nobody knows beforehand')
  for (const other of others) await connect(other, one)
  await until(() => (one.measuring.coordinate()?.error ?? 1000) < 800, 'placed')
  await until(() => others.every(({ measuring }) => measuring.coordinate() !== undefined), 'all placed')
  const [near] = others
  const estimated = (): number | undefined =>
    estimatedRttMs(one.measuring.coordinate(), near?.measuring.coordinate())
  // Places that are known badly give none.
  await until(() => estimated() !== undefined, 'estimated')
  const estimate = estimated()
  t.true(estimate !== undefined && estimate < 1000, `${estimate} ms`)
  await one.measuring.stop()
  const place = one.measuring.coordinate()
  t.truthy(remembered.bytes)
  const again = await startMeasuring(t, { remembered })
  const { vector, height, error } = again.measuring.coordinate() ?? {}
  t.deepEqual([vector, height], [place?.vector, place?.height])
  t.true((error ?? 0) >= 200, 'though it trusts it less')
})

test('a peer at the end of a slow road is far from all, and the others are near one another', async (t) => {
  const init = { intervalMs: 300 }
  const far = await startMeasuring(t, init)
  const others = await Promise.all([1, 2, 3].map(async () => startMeasuring(t, init)))
  const road = await slowRoad(t, far.host.multiaddrs()[0] ?? '', 40)
  for (const [index, other] of others.entries()) {
    await other.host.libp2p.dial(multiaddr(road))
    for (const before of others.slice(0, index)) await connect(other, before)
  }
  const estimates = (of: MeasuringPeer): number[] =>
    others.flatMap((one) =>
      one === of ? [] : [estimatedRttMs(one.measuring.coordinate(), of.measuring.coordinate()) ?? Number.NaN]
    )
  await until(
    () =>
      estimates(far).every((ms) => ms > 60 && ms < 160) && others.flatMap(estimates).every((ms) => ms < 40),
    'far is far and near is near'
  )
  t.is(others.flatMap(estimates).length, 6)
})

test('a damaged place from before is passed over', async (t) => {
  const remembered = memory()
  remembered.bytes = new Uint8Array([1, 2, 3])
  const { measuring } = await startMeasuring(t, { remembered })
  t.is(measuring.coordinate(), undefined)
})

test('a peer pings others for a caller: those that it is connected to, and none that nobody knows', async (t) => {
  const [caller, callee, known] = await Promise.all([startMeasuring(t), startMeasuring(t), startMeasuring(t)])
  await connect(known, callee)
  await connect(caller, callee)
  const call = caller.host.caller(measureProtocol, callee.host.principal)
  const targets = [known.host.principal, newKey().principal, callee.host.principal, caller.host.principal]
  const { rttMicros } = await call('ping', { targets })
  const [reached, unknown, itself, back] = rttMicros
  t.true((reached ?? 0) > 0 && (back ?? 0) > 0)
  t.is(unknown, null)
  t.is(itself, 0)
  const asked: Coordinate = (await call('coordinate', {})).coordinate
  t.is(asked.error, 1000, 'and says openly that it knows nothing of its place')
})

test('a node that the callee never met is pinged where its own advert in the DHT says, unless it has none', async (t) => {
  const [middle, caller, callee, advertised, silent] = await Promise.all([
    startMeasuring(t),
    startMeasuring(t),
    startMeasuring(t),
    startMeasuring(t),
    startMeasuring(t)
  ])
  for (const peer of [caller, callee, advertised]) await connect(peer, middle)
  await connect(caller, callee)
  const { key, host, directory } = advertised
  await directory.publish(nodeAdvert(key, { multiaddrs: host.multiaddrs() }), { topics: [], agents: [] })
  const targets = [host.principal, silent.host.principal]
  const call = caller.host.caller(measureProtocol, callee.host.principal)
  await until(async () => {
    const { rttMicros } = await call('ping', { targets: [host.principal] })
    if (rttMicros[0] === null) await systemClock.sleep(2000)
    return rttMicros[0] !== null
  }, 'found by way of the DHT')
  t.deepEqual((await call('ping', { targets: [silent.host.principal] })).rttMicros, [null])
  await connect(silent, middle)
  const { rttMicros } = await caller.host.caller(measureProtocol, middle.host.principal)('ping', { targets })
  t.true(
    rttMicros.every((rtt) => rtt !== null),
    'though it answers those that it is connected to'
  )
})

test('a node measures its uplink to a real agent', async (t) => {
  const [node, agent] = await Promise.all([startMeasuring(t), startMeasuring(t, { sink: true })])
  await connect(node, agent)
  const meter = new UplinkMeter(
    {
      principal: node.host.principal,
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      remembered: memory(),
      sinks: () => [agent.host.principal],
      callPeer: (principal) => node.host.caller(measureProtocol, principal)
    },
    { intervalMs: 3_600_000, initialDelayMs: 0, bytesMax: 2_000_000, capBps: 100_000_000_000 }
  )
  t.teardown(async () => meter.stop())
  await meter.start()
  await until(() => meter.bps() !== undefined, 'measured')
  t.true((meter.bps() ?? 0) > 100_000)
})

test('limits hold over real streams', async (t) => {
  const [caller, callee] = await Promise.all([startMeasuring(t), startMeasuring(t, { sink: true })])
  await connect(caller, callee)
  const call = caller.host.caller(measureProtocol, callee.host.principal)
  async function* bytes(count: number): AsyncGenerator<{ bytes: Uint8Array }> {
    for (let sent = 0; sent < count; sent += 65_536) yield { bytes: new Uint8Array(65_536) }
  }
  await t.throwsAsync(call('sink', {}, { input: bytes(LIMITS.sinkBytesMax + 1) }), { code: 'TOO_LARGE' })
  const { bytes: taken, micros } = await call('sink', {}, { input: bytes(1_048_576) })
  t.is(taken, 1_048_576)
  t.true(micros > 0)
  await call('sink', {}, { input: bytes(1) })
  await t.throwsAsync(call('sink', {}, { input: bytes(1) }), { code: 'BUSY' })
  const targets = Array<string>(LIMITS.pingTargetsMax).fill(caller.host.principal)
  for (let count = 0; count < LIMITS.pingsPerCallerBurst; count += targets.length)
    await call('ping', { targets })
  await t.throwsAsync(call('ping', { targets }), { code: 'BUSY' })
})

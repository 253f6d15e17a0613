import test from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import { silentLogger } from '../../src/base/log.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { systemRandom } from '../../src/base/random.ts'
import { UplinkMeter, type UplinkMeterComponents, type UplinkMeterInit } from '../../src/node/uplink-meter.ts'
import { measureHandlers } from '../../src/peer/measure-handlers.ts'
import { measureProtocol } from '../../src/protocol/measure-protocol.ts'
import type { Handlers } from '../../src/protocol/method.ts'
import { compileQuery } from '../../src/query/query.ts'
import { ManualClock, settle } from '../base/manual-clock.ts'
import { nodeAdvert } from '../peer/fixtures/network.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { makeKey } from '../ticket/fixtures.ts'

type Sink = Handlers<typeof measureProtocol.methods>['sink']

const node = makeKey()
const agent = makeKey().principal
const HOUR = 3_600_000
const MBPS = 1_000_000

interface Lab {
  readonly clock: ManualClock
  readonly meter: UplinkMeter
  readonly remembered: { bytes: Uint8Array | undefined }
  /** Bytes of each measurement that the agent took. */
  readonly taken: number[]
}

/** With an agent that gets `bps`, or answers as `sink` does. */
function lab(
  init: Partial<UplinkMeterInit & UplinkMeterComponents> & { readonly bps?: number; readonly sink?: Sink }
): Lab {
  const clock = new ManualClock()
  const taken: number[] = []
  const good = measureHandlers({ clock, coordinate: () => never(), ping: async () => null }, { sink: true })
  const sink: Sink = async (params, call) => {
    async function* slowly(): AsyncGenerator<{ bytes: Uint8Array }> {
      for await (const chunk of call.input) {
        await clock.advance(Math.round((chunk.bytes.length * 8000) / (init.bps ?? 10 * MBPS)))
        yield chunk
      }
    }
    const result = await good.sink(params, { ...call, input: slowly() })
    taken.push(result.bytes)
    return result
  }
  const remembered = {
    bytes: undefined as Uint8Array | undefined,
    load: async () => remembered.bytes,
    save: async (bytes: Uint8Array) => void (remembered.bytes = bytes)
  }
  const meter = new UplinkMeter(
    {
      principal: node.principal,
      clock,
      random: systemRandom,
      logger: silentLogger,
      remembered,
      sinks: () => [node.principal, agent],
      callPeer: () => localCaller(measureProtocol, { ...good, sink: init.sink ?? sink }, node.principal),
      ...init
    },
    { intervalMs: 6 * HOUR, initialDelayMs: 1000, bytesMax: 2 * MBPS, capBps: 100 * MBPS, ...init }
  )
  return { clock, meter, remembered, taken }
}

function never(): never {
  throw new Error('nobody asks')
}

async function measured(setting: Lab, ms = 2000): Promise<number | undefined> {
  const { meter, clock } = setting
  await meter.start()
  await clock.advance(ms)
  // Streams within the process take turns that the clock does not see.
  for (let turn = 0; turn < 2000 && meter.bps() === undefined; turn++) await settle()
  return meter.bps()
}

test('a node knows what its uplink carries soon after the start, and measures it again rarely', async (t) => {
  const setting = lab({ bps: 20 * MBPS })
  const { clock, meter, taken } = setting
  const bps = (await measured(setting)) ?? 0
  t.true(Math.abs(bps - 20 * MBPS) < MBPS, `${bps}`)
  t.is(taken.length, 1)
  t.true((taken[0] ?? Infinity) <= 2 * MBPS, 'and no more is sent than it may be')
  await clock.advance(5 * HOUR)
  t.is(taken.length, 1)
  await clock.advance(4 * HOUR)
  for (let turn = 0; turn < 2000 && taken.length < 2; turn++) await settle()
  t.is(taken.length, 2)
  await meter.stop()
})

test('a slow uplink is measured for a bounded time', async (t) => {
  const setting = lab({ bps: 0.5 * MBPS })
  const bps = (await measured(setting)) ?? 0
  t.true(Math.abs(bps - 0.5 * MBPS) < 0.1 * MBPS, `${bps}`)
  t.true((setting.taken[0] ?? Infinity) < MBPS)
  await setting.meter.stop()
})

test('what was measured counts over a restart, and is not measured again at once', async (t) => {
  const before = lab({})
  const bps = await measured(before)
  await before.meter.stop()
  const after = lab({ remembered: { load: async () => before.remembered.bytes, save: async () => {} } })
  await after.meter.start()
  t.is(after.meter.bps(), bps)
  await after.clock.advance(HOUR)
  t.deepEqual(after.taken, [])
  await after.meter.stop()
  const damaged = lab({ remembered: { load: async () => new Uint8Array([1]), save: async () => {} } })
  t.truthy(await measured(damaged), 'what is damaged is passed over')
  await damaged.meter.stop()
})

test('nothing is told that the administrator does not let out, nor what a sink makes up', async (t) => {
  const fast = lab({ bps: 900 * MBPS, capBps: 50 * MBPS })
  t.is(await measured(fast), 50 * MBPS)
  await fast.meter.stop()
  const swallow = async (
    input: AsyncIterable<{ bytes: Uint8Array }>,
    clock: ManualClock
  ): Promise<number> => {
    let bytes = 0
    for await (const chunk of input) {
      bytes += chunk.bytes.length
      await clock.advance(Math.round((chunk.bytes.length * 8000) / (10 * MBPS)))
    }
    return bytes
  }
  const hasty: Lab = lab({
    capBps: 1000 * MBPS,
    sink: async (_params, { input }) => ({ bytes: await swallow(input, hasty.clock), micros: 1 })
  })
  const bps = (await measured(hasty)) ?? Infinity
  t.true(bps > 15 * MBPS && bps < 21 * MBPS, `${bps} is at most twice the truth`)
  await hasty.meter.stop()
  let asked = 0
  const lavish: Lab = lab({
    sink: async (_params, { input }) => {
      const bytes = await swallow(input, lavish.clock)
      asked += 1
      return { bytes: bytes * 100, micros: 1 }
    }
  })
  await lavish.meter.start()
  await lavish.clock.advance(2000)
  for (let turn = 0; turn < 200; turn++) await settle()
  t.is(asked, 1)
  t.is(lavish.meter.bps(), undefined)
  await lavish.meter.stop()
})

test('a node without another agent measures nothing', async (t) => {
  const setting = lab({ sinks: () => [node.principal] })
  await setting.meter.start()
  await setting.clock.advance(HOUR)
  t.is(setting.meter.bps(), undefined)
  t.deepEqual(setting.taken, [])
  await setting.meter.stop()
})

test('a node whose agents are busy asks again after ever longer pauses, at most as long as between measurements', async (t) => {
  const asked: number[] = []
  const setting: Lab = lab({
    sink: async () => {
      asked.push(setting.clock.monotonic())
      throw new SlicenetError('BUSY', 'others measure')
    }
  })
  await setting.meter.start()
  for (let hour = 0; hour < 48; hour++) {
    await setting.clock.advance(HOUR)
    for (let turn = 0; turn < 20; turn++) await settle()
  }
  const pauses = asked.slice(1).map((at, index) => at - (asked[index] ?? 0))
  t.true(pauses.length >= 6 && pauses.length <= 14, `${pauses.length}`)
  t.true(pauses.every((pause) => pause <= 8.5 * HOUR))
  t.true((pauses.at(-1) ?? 0) >= 6 * HOUR)
  await setting.meter.stop()
})

test('one measurement never sends more than a sink takes', async (t) => {
  const setting = lab({ bps: 100 * MBPS, bytesMax: LIMITS.sinkBytesMax * 2 })
  await measured(setting)
  t.deepEqual(setting.taken, [LIMITS.sinkBytesMax])
  await setting.meter.stop()
})

test('nodes are found by their measured uplink', (t) => {
  const query = compileQuery('node.uplinkBps >= 20000000')
  const advert = (attributes: Record<string, number>) => nodeAdvert(node, { attributes }).body
  const failures = [{ uplinkBps: 30 * MBPS }, { uplinkBps: 10 * MBPS }, {}].map((attributes) => {
    const body = advert(attributes)
    return body.role === 'node' ? query.failures(body).length : -1
  })
  t.deepEqual(failures, [0, 1, 1])
})

import test, { type ExecutionContext } from 'ava'
import { LIMITS } from '../../src/base/limits.ts'
import { measureHandlers, type MeasureHandlersComponents } from '../../src/peer/measure-handlers.ts'
import { CHUNK_BYTES_MAX, measureProtocol } from '../../src/protocol/measure-protocol.ts'
import type { Caller } from '../../src/protocol/method.ts'
import type { Coordinate } from '../../src/ticket/coordinate.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { makeKey } from '../ticket/fixtures.ts'

const HERE: Coordinate = { vector: [1, 2, 3, 4], height: 5, error: 6 }
const caller = makeKey().principal
const other = makeKey().principal
const targets = Array.from({ length: LIMITS.pingTargetsMax }, () => makeKey().principal)

interface Lab {
  readonly clock: ManualClock
  readonly pinged: Principal[]
  readonly call: (from?: Principal) => Caller<typeof measureProtocol.methods>
}

function lab(components: Partial<MeasureHandlersComponents> = {}, sink = true): Lab {
  const clock = new ManualClock()
  const pinged: Principal[] = []
  const handlers = measureHandlers(
    {
      clock,
      coordinate: () => HERE,
      ping: async (target) => {
        pinged.push(target)
        return 1000
      },
      ...components
    },
    { sink }
  )
  return { clock, pinged, call: (from = caller) => localCaller(measureProtocol, handlers, from) }
}

async function* chunks(bytes: number): AsyncGenerator<{ bytes: Uint8Array }> {
  for (let left = bytes; left > 0; left -= CHUNK_BYTES_MAX) {
    yield { bytes: new Uint8Array(Math.min(left, CHUNK_BYTES_MAX)) }
  }
}

test('a peer says where it is', async (t) => {
  t.deepEqual(await lab().call()('coordinate', {}), { coordinate: HERE })
})

test('targets are answered in their order, null for those that are not reached', async (t) => {
  const [one, two, three] = targets as [Principal, Principal, Principal]
  const { call } = lab({
    ping: async (target) => {
      if (target === two) throw new Error('gone')
      return target === one ? 100 : null
    }
  })
  t.deepEqual(await call()('ping', { targets: [one, two, three] }), { rttMicros: [100, null, null] })
})

test('one call has no more targets than the limit', async (t) => {
  const { call, pinged } = lab()
  await t.throwsAsync(call()('ping', { targets: [...targets, other] }), { code: 'PROTOCOL_ERROR' })
  await t.throwsAsync(call()('ping', { targets: [] }), { code: 'PROTOCOL_ERROR' })
  t.is(pinged.length, 0)
  await call()('ping', { targets })
  t.is(pinged.length, targets.length)
})

test('a target is pinged once in a while, whoever asks and however often', async (t) => {
  const { call, pinged, clock } = lab()
  for (const from of [caller, other, caller]) await call(from)('ping', { targets: targets.slice(0, 3) })
  await call()('ping', { targets: [other, other, other] })
  t.is(pinged.length, 4)
  await clock.advance(10_000)
  await call(other)('ping', { targets: targets.slice(0, 3) })
  t.is(pinged.length, 7, 'and anew when that was a while ago')
})

test('a caller that asks too much waits, others do not', async (t) => {
  const { call, clock } = lab()
  const calls = LIMITS.pingsPerCallerBurst / targets.length
  for (let made = 0; made < calls; made++) await call()('ping', { targets })
  await t.throwsAsync(call()('ping', { targets }), { code: 'BUSY' })
  await t.notThrowsAsync(call(other)('ping', { targets }))
  await clock.advance(60_000)
  await t.notThrowsAsync(call()('ping', { targets }))
})

test('callers under ever new names are held by what all may ask together', async (t) => {
  const { call } = lab()
  let answered = 0
  const codes = new Set<unknown>()
  for (let made = 0; made < (LIMITS.pingsBurst / targets.length) * 2; made++) {
    try {
      await call(makeKey().principal)('ping', { targets })
      answered += targets.length
    } catch (error) {
      codes.add((error as { code?: string }).code)
    }
  }
  t.is(answered, LIMITS.pingsBurst)
  t.deepEqual([...codes], ['BUSY'])
})

test('so many pings are under way at a time, and their callers may go', async (t) => {
  let answer = (): void => {}
  const held = new Promise<void>((resolve) => (answer = resolve))
  const { call } = lab({ ping: async () => held.then(() => 7) })
  const fresh = (): Principal[] => targets.map(() => makeKey().principal)
  const leaving = new AbortController()
  const gone = call()('ping', { targets: fresh() }, { signal: leaving.signal })
  const second = fresh()
  const waiting = call(other)('ping', { targets: second })
  await t.throwsAsync(call(other)('ping', { targets: fresh() }), { code: 'BUSY' })
  leaving.abort(new Error('enough'))
  await t.throwsAsync(gone, { message: 'enough' })
  answer()
  t.deepEqual(await waiting, { rttMicros: second.map(() => 7) })
  await t.notThrowsAsync(call(other)('ping', { targets: fresh() }))
})

test('a sink counts what comes in, and takes no more than the limit', async (t) => {
  const { call } = lab()
  const most = LIMITS.sinkBytesMax
  t.is((await call()('sink', {}, { input: chunks(most) })).bytes, most)
  await t.throwsAsync(call()('sink', {}, { input: chunks(most + 1) }), { code: 'TOO_LARGE' })
  t.deepEqual(await call()('sink', {}, { input: chunks(0) }), { bytes: 0, micros: 0 })
})

test('a sink tells the time from the first byte to the last', async (t) => {
  const { call, clock } = lab()
  async function* slowly(): AsyncGenerator<{ bytes: Uint8Array }> {
    await clock.advance(1000)
    yield { bytes: new Uint8Array(10) }
    await clock.advance(20)
    yield { bytes: new Uint8Array(10) }
  }
  t.deepEqual(await call()('sink', {}, { input: slowly() }), { bytes: 20, micros: 20_000 })
})

async function refusedSinks(
  t: ExecutionContext,
  { call }: Lab,
  froms: readonly Principal[]
): Promise<number> {
  let refused = 0
  for (const from of froms) {
    try {
      await call(from)('sink', {}, { input: chunks(1) })
    } catch (error) {
      t.is((error as { code?: string }).code, 'BUSY')
      refused += 1
    }
  }
  return refused
}

test('a caller may use the sink now and then, and all together not without end', async (t) => {
  const own = lab()
  t.is(await refusedSinks(t, own, Array<string>(LIMITS.sinksPerCallerBurst + 2).fill(caller)), 2)
  t.is(await refusedSinks(t, own, [other]), 0)
  await own.clock.advance(3_600_000)
  t.is(await refusedSinks(t, own, [caller]), 0)
  const many = Array.from({ length: LIMITS.sinksBurst + 3 }, () => makeKey().principal)
  t.is(await refusedSinks(t, lab(), many), 3)
})

test('so many use the sink at a time', async (t) => {
  const { call } = lab()
  let end = (): void => {}
  const ended = new Promise<void>((resolve) => (end = resolve))
  async function* held(): AsyncGenerator<{ bytes: Uint8Array }> {
    yield { bytes: new Uint8Array(1) }
    await ended
  }
  const running = Array.from({ length: LIMITS.sinksAtOnceMax }, async () =>
    call(makeKey().principal)('sink', {}, { input: held() })
  )
  await new Promise((resolve) => setImmediate(resolve))
  await t.throwsAsync(call()('sink', {}, { input: chunks(1) }), { code: 'BUSY' })
  end()
  await Promise.all(running)
  await t.notThrowsAsync(call()('sink', {}, { input: chunks(1) }))
})

test('a peer that is no agent takes no measurement of an uplink', async (t) => {
  await t.throwsAsync(lab({}, false).call()('sink', {}, { input: chunks(1) }), { code: 'DENIED' })
})

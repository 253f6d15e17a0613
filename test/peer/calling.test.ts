import test, { type ExecutionContext } from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import { LIMITS } from '../../src/base/limits.ts'
import type { Caller } from '../../src/protocol/method.ts'
import { callId, refusalObject } from '../../src/ticket/refusal.ts'
import { countingHandlers, countingProtocol, newWitness, type Witness } from './fixtures/counting-protocol.ts'
import { newKey, startPeer, stopPeer, until, type TestPeer } from './fixtures/network.ts'

interface Pair {
  readonly caller: TestPeer
  readonly callee: TestPeer
  readonly call: Caller<(typeof countingProtocol)['methods']>
  readonly witness: Witness
}

async function pair(t: ExecutionContext): Promise<Pair> {
  const [caller, callee] = await Promise.all([startPeer(t), startPeer(t)])
  const witness = newWitness()
  await callee.host.serve(countingProtocol, countingHandlers(witness))
  await caller.host.addAddresses(callee.host.principal, callee.host.multiaddrs())
  return { caller, callee, witness, call: caller.host.caller(countingProtocol, callee.host.principal) }
}

function openStreams({ host }: TestPeer): number {
  return host.libp2p
    .getConnections()
    .flatMap(({ streams }) => streams)
    .filter(({ protocol }) => protocol === countingProtocol.id).length
}

async function* counted(to: number, step?: () => Promise<void>): AsyncGenerator<number> {
  for (let i = 1; i <= to; i++) {
    await step?.()
    yield i
  }
}

test('a callee knows its caller by the key of the channel', async (t) => {
  const { call, caller } = await pair(t)
  t.deepEqual(await call('whoAmI', {}), { principal: caller.host.principal })
})

test('items stream to the caller in order, input to the callee', async (t) => {
  const { call } = await pair(t)
  const items: number[] = []
  t.deepEqual(await call('countTo', { to: 200 }, { onItem: (item) => void items.push(item) }), { sent: 200 })
  t.deepEqual(
    items,
    Array.from({ length: 200 }, (_, i) => i + 1)
  )
  t.deepEqual(await call('sum', {}, { input: counted(100) }), { sum: 5050 })
})

test('a slow reader holds the writer back, and everything arrives', async (t) => {
  const { call, witness } = await pair(t)
  const chunks = 100
  let read = 0
  let release = (): void => {}
  const held = new Promise<void>((resolve) => (release = resolve))
  const pouring = call(
    'pour',
    { chunks },
    {
      onItem: async (item) => {
        if (read === 0) await held
        t.is(item[0], read)
        read += 1
      }
    }
  )
  let before = -1
  await until(async () => {
    // Still, when nothing was added for a while.
    const still = witness.poured === before && before > 0
    before = witness.poured
    await new Promise((resolve) => setTimeout(resolve, 300))
    return still
  }, 'held back')
  const mayBeUnderWay = LIMITS.streamWindowBytesMax + 2 * LIMITS.streamReadAheadBytesMax
  t.true(witness.poured * 64 * 1024 <= mayBeUnderWay, `${witness.poured} chunks are under way`)
  release()
  await pouring
  t.is(read, chunks)
})

test('a reader that is slow with everything holds the writer back for as long as it takes', async (t) => {
  const { call, witness } = await pair(t)
  const chunks = 400
  // A stream breaks that holds 4 MiB.
  const mayBeUnderWay = 32
  let read = 0
  let most = 0
  const onItem = async (item: Uint8Array): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, 2))
    t.is(item[0], read % 256)
    read += 1
    most = Math.max(most, witness.poured - read)
  }
  await call('pour', { chunks }, { onItem })
  t.is(read, chunks)
  t.true(most <= mayBeUnderWay, `${most} chunks are under way`)
})

test('megabytes of input arrive whole', async (t) => {
  const { call } = await pair(t)
  const chunk = new Uint8Array(100 * 1024).fill(7)
  async function* input(): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < 60; i++) yield chunk
  }
  t.deepEqual(await call('measure', {}, { input: input() }), { bytes: 60 * chunk.length })
})

test('errors cross with code, hint and details; what is internal keeps its stack', async (t) => {
  const { call, callee, caller } = await pair(t)
  const refused = await t.throwsAsync(call('refuse', {}), { instanceOf: SlicenetError })
  t.is(refused.code, 'OVERBOOKED')
  t.is(refused.hint, 'Ask later.')
  t.deepEqual(refused.details, { left: 0 })
  const crashed = await t.throwsAsync(call('crash', {}), { instanceOf: SlicenetError })
  t.is(crashed.code, 'INTERNAL')
  t.false(JSON.stringify(crashed).includes('counting-protocol.ts'))
  await until(() => openStreams(callee) === 0 && openStreams(caller) === 0, 'streams closed')
})

test('an aborted call rejects with the reason and aborts its handler', async (t) => {
  const { call, witness, callee, caller } = await pair(t)
  const controller = new AbortController()
  const hanging = call(
    'hang',
    {},
    { signal: controller.signal, onItem: () => controller.abort(new Error('enough')) }
  )
  await t.throwsAsync(hanging, { message: 'enough' })
  await until(() => witness.aborted === 1, 'the handler is aborted')
  await until(() => openStreams(callee) === 0 && openStreams(caller) === 0, 'streams closed')
})

test('handlers are aborted when the callee stops, and callers are told', async (t) => {
  const { call, callee, witness } = await pair(t)
  const hanging = call('hang', {})
  await until(() => witness.hanging === 1, 'the call is there')
  const [error] = await Promise.all([t.throwsAsync(hanging, { instanceOf: SlicenetError }), stopPeer(callee)])
  t.is(error.code, 'PEER_UNREACHABLE')
  t.is(witness.aborted, 1)
})

test('a peer calls itself without a network', async (t) => {
  const peer = await startPeer(t, { listen: [] })
  await peer.host.serve(countingProtocol, countingHandlers(newWitness()))
  const call = peer.host.caller(countingProtocol, peer.host.principal)
  t.deepEqual(await call('whoAmI', {}), { principal: peer.host.principal })
  const items: number[] = []
  await call('countTo', { to: 3 }, { onItem: (item) => void items.push(item) })
  t.deepEqual(items, [1, 2, 3])
  t.deepEqual(await call('sum', {}, { input: counted(4) }), { sum: 10 })
  const refused = await t.throwsAsync(call('refuse', {}), { instanceOf: SlicenetError })
  t.is(refused.code, 'OVERBOOKED')
})

test('a peer that gives up a call to itself does not wait for its handler', async (t) => {
  const { host } = await startPeer(t)
  const controller = new AbortController()
  const whoAmI = async (): Promise<never> => {
    controller.abort(new Error('enough'))
    return new Promise(() => {})
  }
  await host.serve(countingProtocol, { ...countingHandlers(newWitness()), whoAmI })
  const asking = host.caller(countingProtocol, host.principal)('whoAmI', {}, { signal: controller.signal })
  await t.throwsAsync(asking, { message: 'enough' })
})

test('who is not there is unreachable, which may be tried again', async (t) => {
  const { caller, callee, call } = await pair(t)
  await call('whoAmI', {})
  await stopPeer(callee)
  const gone = await t.throwsAsync(call('whoAmI', {}), { instanceOf: SlicenetError })
  t.is(gone.code, 'PEER_UNREACHABLE')
  t.true(gone.retryable)
  const stranger = caller.host.caller(countingProtocol, newKey().principal)
  const controller = new AbortController()
  const calling = stranger('whoAmI', {}, { signal: controller.signal })
  controller.abort(new Error('enough'))
  await t.throwsAsync(calling, { message: 'enough' })
})

test('a protocol that is not served is named', async (t) => {
  const [one, other] = await Promise.all([startPeer(t), startPeer(t)])
  await one.host.addAddresses(other.host.principal, other.host.multiaddrs())
  const call = one.host.caller(countingProtocol, other.host.principal)
  const error = await t.throwsAsync(call('whoAmI', {}), { instanceOf: SlicenetError })
  t.is(error.code, 'PROTOCOL_ERROR')
  t.true(error.message.includes(countingProtocol.id))
})

test('a call finds a peer again that restarted at the same address', async (t) => {
  const { call, callee } = await pair(t)
  await call('whoAmI', {})
  const [address = ''] = callee.host.multiaddrs()
  await stopPeer(callee)
  const again = await startPeer(t, { key: callee.key, listen: [address.replace(/\/p2p\/.*/, '')] })
  await again.host.serve(countingProtocol, countingHandlers(newWitness()))
  t.truthy(await call('whoAmI', {}))
})

test('too many calls of one peer at a time are refused as BUSY, the others go on', async (t) => {
  const { call, witness } = await pair(t)
  const controller = new AbortController()
  const { signal } = controller
  const hanging = Array.from({ length: LIMITS.streamsPerPeerMax }, async () => call('hang', {}, { signal }))
  const ended = Promise.allSettled(hanging)
  await until(() => witness.hanging === LIMITS.streamsPerPeerMax, 'all hang')
  const refused = await t.throwsAsync(call('whoAmI', {}), { instanceOf: SlicenetError })
  t.is(refused.code, 'BUSY')
  controller.abort(new Error('enough'))
  await ended
  await until(() => witness.aborted === LIMITS.streamsPerPeerMax, 'all are over')
  t.truthy(await call('whoAmI', {}))
})

test('calls that stream and last do not keep short ones out', async (t) => {
  const { call, callee, witness } = await pair(t)
  const others = await Promise.all([startPeer(t), startPeer(t), startPeer(t)])
  const controller = new AbortController()
  const { signal } = controller
  const each = LIMITS.streamsPerPeerMax - 2
  const hanging = others.flatMap(({ host }) => {
    const calls = host.caller(countingProtocol, callee.host.principal)
    return Array.from({ length: each }, async () => {
      await host.addAddresses(callee.host.principal, callee.host.multiaddrs())
      return calls('hang', {}, { signal })
    })
  })
  const ended = Promise.allSettled(hanging)
  t.true(hanging.length > LIMITS.requestsAtOnceMax)
  await until(() => witness.hanging === hanging.length, 'all hang')
  t.truthy(await call('whoAmI', {}))
  controller.abort(new Error('enough'))
  await ended
})

test('a result before the end of the input ends the call on both sides', async (t) => {
  const { call, caller, callee } = await pair(t)
  let stopped = false
  const input = counted(1_000_000, async () => {
    if (stopped) throw new Error('stopped')
    await new Promise((resolve) => setTimeout(resolve, 5))
  })
  t.deepEqual(await call('early', {}, { input }), {})
  stopped = true
  await until(() => openStreams(callee) === 0 && openStreams(caller) === 0, 'streams closed')
})

test('a thousand calls leave no stream behind', async (t) => {
  const { call, caller, callee } = await pair(t)
  for (let batch = 0; batch < 50; batch++) {
    await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        if (i % 4 === 0) await t.throwsAsync(call('refuse', {}))
        else if (i % 4 === 1) await call('sum', {}, { input: counted(3) })
        else await call('countTo', { to: 3 })
      })
    )
  }
  await until(() => openStreams(callee) === 0 && openStreams(caller) === 0, 'streams closed')
  t.is(caller.host.libp2p.getConnections().length, 1)
})

const signing = { ...countingProtocol, id: '/slicenet/test-signing/1.0.0', signsRefusals: true } as const

test('decisions are signed by the peer that was called, over the network and within one', async (t) => {
  const { caller, callee } = await pair(t)
  await callee.host.serve(signing, countingHandlers(newWitness()))
  const callers = [caller, callee].map(({ host }) => host.caller(signing, callee.host.principal))
  for (const call of callers) {
    const refused = await t.throwsAsync(call('refuse', {}), { instanceOf: SlicenetError })
    t.is(refused.code, 'OVERBOOKED')
    t.is(refused.details?.['left'], 0)
    const shown = refusalObject.open(Buffer.from(String(refused.details?.['envelope']), 'base64'))
    t.like(shown.body, { issuer: callee.host.principal, code: 'OVERBOOKED', request: callId('refuse', {}) })
    const crashed = await t.throwsAsync(call('crash', {}), { instanceOf: SlicenetError })
    t.is(crashed.details, undefined)
  }
})

import test from 'ava'
import * as v from 'valibot'
import { SlicenetError } from '../../src/base/errors.ts'
import { answerCall, callMethod } from '../../src/protocol/exchange.ts'
import type { Handlers } from '../../src/protocol/method.ts'
import { readMessages, writeMessage, type ByteDuplex } from '../../src/wire/duplex.ts'
import { duplexPair } from '../wire/duplex-pair.ts'

const number = v.pipe(v.number(), v.integer())
const protocol = {
  id: '/slicenet/test/1.0.0',
  methods: {
    add: { params: v.strictObject({ a: number, b: number }), result: number },
    count: { params: v.strictObject({ to: number }), item: number, result: v.string() },
    sum: { params: v.strictObject({}), input: number, result: number },
    wait: { params: v.strictObject({}), result: v.strictObject({}) },
    fail: { params: v.strictObject({ how: v.string() }), result: v.strictObject({}) }
  }
} as const

function serve(duplex: ByteDuplex, overrides: Partial<Handlers<typeof protocol.methods>> = {}) {
  const internal: unknown[] = []
  const handlers: Handlers<typeof protocol.methods> = {
    add: async ({ a, b }) => a + b,
    count: async ({ to }, { emit }) => {
      for (let i = 0; i < to; i++) await emit(i)
      return 'done'
    },
    sum: async (_params, { input }) => {
      let sum = 0
      for await (const item of input) sum += item
      return sum
    },
    wait: async (_params, { signal }) => {
      await new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(new Error('given up')), { once: true })
      })
      return {}
    },
    fail: async ({ how }) => {
      if (how === 'refuse')
        throw new SlicenetError('DENIED', 'no', { hint: 'ask', details: { why: 'because' } })
      if (how === 'details') throw new SlicenetError('DENIED', 'no', { details: { ratio: 0.5 } })
      throw new Error('a bug')
    },
    ...overrides
  }
  const done = answerCall(protocol, handlers, duplex, {
    principal: undefined,
    signal: new AbortController().signal,
    onInternalError: (_method, error) => internal.push(error)
  })
  return { done, internal }
}

test('a call gives its result, whatever pieces the stream comes in', async (t) => {
  for (const pieceBytes of [1, 3, 1000]) {
    const [here, there] = duplexPair({ pieceBytes })
    const { done } = serve(there)
    t.is(await callMethod(protocol, 'add', { a: 1, b: 2 }, here), 3)
    await done
  }
})

test('items stream in order before the result', async (t) => {
  const [here, there] = duplexPair()
  serve(there)
  const items: number[] = []
  t.is(
    await callMethod(protocol, 'count', { to: 5 }, here, { onItem: (item) => void items.push(item) }),
    'done'
  )
  t.deepEqual(items, [0, 1, 2, 3, 4])
})

test('input streams to the handler and ends', async (t) => {
  const [here, there] = duplexPair()
  serve(there)
  async function* input(): AsyncGenerator<number> {
    yield 1
    yield 2
    yield 39
  }
  t.is(await callMethod(protocol, 'sum', {}, here, { input: input() }), 42)
})

test('an error crosses with code, hint and details, and without its stack', async (t) => {
  const [here, there] = duplexPair()
  serve(there)
  const error = await t.throwsAsync(callMethod(protocol, 'fail', { how: 'refuse' }, here), {
    instanceOf: SlicenetError
  })
  t.like(error, { code: 'DENIED', message: 'no', hint: 'ask', details: { why: 'because' } })
})

test('an error whose details cannot travel still crosses', async (t) => {
  const [here, there] = duplexPair()
  serve(there)
  await t.throwsAsync(callMethod(protocol, 'fail', { how: 'details' }, here), {
    code: 'DENIED',
    message: 'no'
  })
})

test("a handler's bug is INTERNAL to the caller and told to the callee", async (t) => {
  const [here, there] = duplexPair()
  const { internal, done } = serve(there)
  await t.throwsAsync(callMethod(protocol, 'fail', { how: 'throw' }, here), { code: 'INTERNAL' })
  await done
  t.is(internal.length, 1)
})

test('a handler that ends because its caller went away is no internal error, and one that fails is', async (t) => {
  for (const isOwn of [false, true]) {
    const [here, there] = duplexPair()
    const { done, internal } = serve(there, {
      wait: async (_params, { signal }) => {
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
        if (isOwn) throw new Error('a bug')
        throw signal.reason
      }
    })
    const controller = new AbortController()
    const call = callMethod(protocol, 'wait', {}, here, { signal: controller.signal })
    setTimeout(() => controller.abort(new Error('enough')), 20)
    await t.throwsAsync(call, { message: 'enough' })
    await done
    t.is(internal.length, isOwn ? 1 : 0)
  }
})

test('an aborted call rejects with the reason and aborts the handler', async (t) => {
  const [here, there] = duplexPair()
  const { done } = serve(there)
  const controller = new AbortController()
  const call = callMethod(protocol, 'wait', {}, here, { signal: controller.signal })
  setTimeout(() => controller.abort(new Error('enough')), 20)
  await t.throwsAsync(call, { message: 'enough' })
  await done
  t.true(there.broken.aborted)
})

test('unknown methods, even inherited names, are refused', async (t) => {
  for (const method of ['nothing', 'toString', '__proto__']) {
    const [here, there] = duplexPair()
    serve(there)
    await t.throwsAsync(callMethod(protocol, method as 'add', { a: 1, b: 1 }, here), {
      code: 'PROTOCOL_ERROR'
    })
    const [caller, callee] = duplexPair()
    const { done } = serve(callee)
    await writeMessage(caller, { method, params: {} })
    await done
    t.pass()
  }
})

test('parameters of a wrong type never reach the handler', async (t) => {
  const [here, there] = duplexPair()
  serve(there, { add: async () => t.fail() })
  const params = { a: 'one', b: 2 } as never
  await t.throwsAsync(callMethod(protocol, 'add', params, here), { code: 'PROTOCOL_ERROR', message: /a: / })
})

test('a message beyond the limit is refused before it is read', async (t) => {
  const [here, there] = duplexPair({ pieceBytes: 65536 })
  serve(there)
  // A length of 2^28 as a varint, and nothing behind it.
  await here.write(new Uint8Array([0x80, 0x80, 0x80, 0x80, 0x01]))
  const replies = []
  for await (const reply of readMessages(here)) replies.push(reply)
  t.like(replies, [{ error: { code: 'TOO_LARGE' } }])
})

test('a stream that says so takes larger messages', async (t) => {
  const large = 'x'.repeat(300_000)
  for (const [messageBytesMax, passes] of [
    [undefined, false],
    [1_000_000, true]
  ] as const) {
    const ends = duplexPair({ pieceBytes: 65_536 }).map((end) =>
      messageBytesMax === undefined ? end : { ...end, messageBytesMax }
    )
    const [here, there] = ends as [ByteDuplex, ByteDuplex]
    const call = callMethod(protocol, 'fail', { how: large }, here)
    serve(there)
    const error = await t.throwsAsync(call, { instanceOf: SlicenetError })
    t.is(error?.code, passes ? 'INTERNAL' : 'TOO_LARGE')
  }
})

test('what schemas would drop without a word is refused in either direction', async (t) => {
  const map = v.record(v.string(), number)
  const maps = { id: protocol.id, methods: { swap: { params: map, result: map } } } as const
  const swap = async (params: Record<string, number>, result: Record<string, number>) => {
    const [here, there] = duplexPair()
    void answerCall(maps, { swap: async () => result }, there, {
      principal: undefined,
      signal: new AbortController().signal,
      onInternalError: () => {}
    })
    return callMethod(maps, 'swap', params, here)
  }
  const dropped = { constructor: 1 } as never
  const expected = { code: 'PROTOCOL_ERROR', message: /more in it than its fields/ }
  t.deepEqual(await swap({ a: 1 }, { b: 2 }), { b: 2 })
  await t.throwsAsync(swap(dropped, {}), expected)
  await t.throwsAsync(swap({}, dropped), expected)
  await t.throwsAsync(swap([] as never, {}), expected)
})

import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { getEventListeners, once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { SlicenetError } from '../../src/base/errors.ts'
import { connect, type NodeEvent } from '../../src/index.ts'
import { CallStream, QueueBuffer, type ItemBuffer } from '../../src/sdk/call-stream.ts'
import { NodeEventBuffer } from '../../src/sdk/discovery.ts'
import { settle } from '../base/manual-clock.ts'
import { serveControl } from '../daemon/control-fixture.ts'
import { until } from '../peer/fixtures/network.ts'
import { makeKey } from '../ticket/fixtures.ts'
import { nodeView } from './fixtures/node-view.ts'

const KEYS = Array.from({ length: 10 }, () => makeKey().principal)
const FLOOD = 10_000

const event = (type: NodeEvent['type'], id = KEYS[0] ?? '', name = 'n'): NodeEvent => ({
  type,
  node: nodeView({ id, name })
})

test('nodes come, change and go, and leaving the loop ends the call', async (t) => {
  const left = Promise.withResolvers<void>()
  await using control = await serveControl({
    async discover({ query }, { emit, signal }) {
      t.is(query, 'true')
      for (const type of ['match', 'update', 'expire'] as const) {
        await emit({ event: type, node: nodeView({ id: KEYS[type.length - 5] ?? '' }) })
      }
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
      left.resolve()
      return {}
    }
  })
  const client = await connect(control)
  const types: string[] = []
  for await (const { type } of client.discover('true')) if (types.push(type) === 3) break
  t.deepEqual(types, ['match', 'update', 'expire'])
  await left.promise
  t.pass('the handler heard that nobody reads any more')
})

test('a query that is none is QUERY_INVALID before the first node, and nothing is asked before that is read', async (t) => {
  let asked = 0
  await using control = await serveControl({
    async discover() {
      asked += 1
      throw new SlicenetError('QUERY_INVALID', 'unexpected end')
    }
  })
  const client = await connect(control)
  const nodes = client.discover('node.')
  await settle()
  t.is(asked, 0)
  await t.throwsAsync(nodes[Symbol.asyncIterator]().next(), { code: 'QUERY_INVALID' })
  t.is(asked, 1)
})

test('an abort throws its reason and leaves no listener, however the loop stands', async (t) => {
  await using control = await serveControl({
    async discover(_params, { emit, signal }) {
      await emit({ event: 'match', node: nodeView({ id: KEYS[0] ?? '' }) })
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    }
  })
  const client = await connect(control)
  const controller = new AbortController()
  const nodes = client.discover(undefined, { signal: controller.signal })[Symbol.asyncIterator]()
  await nodes.next()
  const waiting = nodes.next()
  controller.abort(new Error('enough'))
  await t.throwsAsync(waiting, { message: 'enough' })
  t.deepEqual(await nodes.next(), { done: true, value: undefined })
  t.is(getEventListeners(controller.signal, 'abort').length, 0)
  await t.throwsAsync(Array.fromAsync(client.discover(undefined, { signal: controller.signal })), {
    message: 'enough'
  })
})

test('a daemon that dies ends the loop with DAEMON_UNREACHABLE, after what it had said', async (t) => {
  const control = await serveControl({
    async discover(_params, { emit, signal }) {
      await emit({ event: 'match', node: nodeView({ id: KEYS[0] ?? '' }) })
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    }
  })
  const client = await connect(control)
  const nodes = client.discover()[Symbol.asyncIterator]()
  t.like(await nodes.next(), { value: { type: 'match' } })
  const next = nodes.next()
  await control[Symbol.asyncDispose]()
  await t.throwsAsync(next, { code: 'DAEMON_UNREACHABLE' })
  t.deepEqual(await nodes.next(), { done: true, value: undefined })
})

test('a daemon that is killed ends the loop with DAEMON_UNREACHABLE', async (t) => {
  await using control = await serveControl({})
  const socketPath = join(control.directory, 'killed.sock')
  const server = createServer((socket) => socket.once('data', () => socket.destroy())).listen(socketPath)
  t.teardown(() => server.close())
  await once(server, 'listening')
  const client = await connect({ socketPath })
  await t.throwsAsync(Array.fromAsync(client.discover()), { code: 'DAEMON_UNREACHABLE' })
})

test('closing a client ends a loop that is behind, although nobody makes room', async (t) => {
  const full = Promise.withResolvers<void>()
  await using control = await serveControl({
    async discover(_params, { emit, signal }) {
      for (const id of KEYS) await emit({ event: 'match', node: nodeView({ id }) })
      full.resolve()
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    }
  })
  const client = await connect(control)
  const nodes = client.discover(undefined, { bufferMax: 1 })[Symbol.asyncIterator]()
  await nodes.next()
  await full.promise
  await settle()
  await client.close()
  const rest = async (): Promise<void> => {
    while ((await nodes.next()).done !== true);
  }
  await t.throwsAsync(rest(), { code: 'INTERRUPTED' })
})

test.serial('a hundred loops that are left leave no connection', async (t) => {
  let open = 0
  await using control = await serveControl({
    async discover(_params, { emit, signal }) {
      open += 1
      signal.addEventListener('abort', () => (open -= 1))
      await emit({ event: 'match', node: nodeView({ id: KEYS[0] ?? '' }) })
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    }
  })
  const pipes = (): number => process.getActiveResourcesInfo().filter((kind) => kind === 'PipeWrap').length
  const client = await connect(control)
  const before = pipes()
  const controller = new AbortController()
  for (let each = 0; each < 100; each++) {
    for await (const _event of client.discover(undefined, { signal: controller.signal })) break
  }
  await until(() => open === 0 && pipes() <= before, 'closed')
  t.is(getEventListeners(controller.signal, 'abort').length, 0)
})

/** Floods a reader that has read one event; gives how many the flood brought in, and what waits then. */
async function flood(
  t: ExecutionContext,
  buffer: ItemBuffer<NodeEvent>
): Promise<{ readonly brought: number; readonly waiting: NodeEvent[] }> {
  let brought = 0
  const flooded = Promise.withResolvers<void>()
  const stream = new CallStream({
    start: async ({ onItem }) => {
      for (; brought < FLOOD; brought++) {
        const id = KEYS[brought % KEYS.length] ?? ''
        const taken = onItem(event(brought < KEYS.length ? 'match' : 'update', id, `n${brought}`))
        const isTaken = await Promise.race([taken.then(() => true), settle().then(() => false)])
        if (!isTaken) break
      }
      flooded.resolve()
    },
    buffer: () => buffer
  })
  const first = await stream.next()
  t.is(first.value?.node.name, 'n0')
  await flooded.promise
  const waiting: NodeEvent[] = []
  for (let one = buffer.take(); one !== undefined; one = buffer.take()) waiting.push(one)
  await stream.return()
  return { brought, waiting }
}

test('of 10,000 updates a reader that is behind finds as many waiting as there are nodes, the last of each', async (t) => {
  const { brought, waiting } = await flood(t, new NodeEventBuffer(1024))
  t.is(brought, FLOOD)
  t.is(waiting.length, KEYS.length)
  t.deepEqual(
    waiting.map(({ node }) => node.name).sort(),
    KEYS.map((_key, index) => `n${FLOOD - KEYS.length + index}`).sort()
  )
})

test('without merging as many wait as were sent, or the sender is held up', async (t) => {
  t.is((await flood(t, new QueueBuffer(Infinity))).waiting.length, FLOOD - 1)
  t.true((await flood(t, new QueueBuffer(16))).brought <= 17)
})

test('a program that is behind holds a daemon up no more than one that is not, and learns what is', async (t) => {
  const flooded = Promise.withResolvers<void>()
  await using control = await serveControl({
    async discover(_params, { emit, signal }) {
      for (let sent = 0; sent < FLOOD; sent++) {
        const node = nodeView({ id: KEYS[sent % KEYS.length] ?? '', name: `n${sent}` })
        await emit({ event: sent < KEYS.length ? 'match' : 'update', node })
      }
      flooded.resolve()
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    }
  })
  const client = await connect(control)
  let read = 0
  for await (const { node } of client.discover()) {
    if (read++ === 0) await flooded.promise
    if (node.name === `n${FLOOD - 1}`) break
  }
  // What was on its way in the socket when the flood was over comes after what waited.
  t.true(read < FLOOD / 10, `${read} events`)
})

test('what comes for a stream that is over is refused, whether there is room or not', async (t) => {
  const late = Promise.withResolvers<(item: number) => Promise<void>>()
  const stream = new CallStream({
    start: async ({ onItem }) => {
      late.resolve(onItem)
      await onItem(1)
      throw new Error('the end')
    },
    buffer: () => new QueueBuffer<number>(1)
  })
  await t.throwsAsync(stream.result(), { message: 'the end' })
  const offer = await late.promise
  await t.throwsAsync(offer(2), { code: 'INTERRUPTED' })
  t.deepEqual(await stream.next(), { done: false, value: 1 })
  await t.throwsAsync(stream.next(), { message: 'the end' })
  await t.throwsAsync(offer(3), { code: 'INTERRUPTED' })
})

test('with as many nodes as it holds it takes news of these and of no other', async (t) => {
  const buffer = new NodeEventBuffer(2)
  t.true(buffer.offer(event('match', KEYS[0])))
  t.true(buffer.offer(event('match', KEYS[1])))
  t.false(buffer.offer(event('match', KEYS[2])))
  t.true(buffer.offer(event('update', KEYS[1], 'new')))
  t.is(buffer.size, 2)
  buffer.take()
  t.true(buffer.offer(event('match', KEYS[2])))
  await using control = await serveControl({})
  const client = await connect(control)
  t.throws(() => client.discover('', { bufferMax: 0 }), { instanceOf: TypeError })
})

test('whoever reads seldom ends up knowing what whoever reads all knows', (t) => {
  const steps = fc.array(
    fc.record({ node: fc.nat({ max: 2 }), isThere: fc.boolean(), reads: fc.nat({ max: 3 }) }),
    { maxLength: 60 }
  )
  fc.assert(
    fc.property(steps, (given) => {
      const buffer = new NodeEventBuffer(3)
      const truth = new Map<string, string>()
      const told = new Map<string, string>()
      const read = (): boolean => {
        const next = buffer.take()
        if (next === undefined) return false
        const { id, name } = next.node
        const isSensible = told.has(id) === (next.type !== 'match')
        t.true(isSensible, `${next.type} of what is ${told.has(id) ? '' : 'not '}known`)
        if (next.type === 'expire') told.delete(id)
        else told.set(id, name)
        return true
      }
      for (const [at, { node, isThere, reads }] of given.entries()) {
        const id = KEYS[node] ?? ''
        const before = truth.has(id)
        if (isThere) truth.set(id, `n${at}`)
        else truth.delete(id)
        if (isThere || before) {
          const type = !isThere ? 'expire' : before ? 'update' : 'match'
          t.true(buffer.offer(event(type, id, `n${at}`)))
        }
        for (let left = reads; left > 0; left--) read()
      }
      while (read());
      t.deepEqual(Object.fromEntries(told), Object.fromEntries(truth))
    })
  )
})

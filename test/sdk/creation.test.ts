import test, { type ExecutionContext } from 'ava'
import { getEventListeners } from 'node:events'
import type { PeerParts } from '../../src/daemon/compose.ts'
import { Confirmation, type Confirming } from '../../src/daemon/confirmation.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { controlHandlers } from '../../src/daemon/control-handlers.ts'
import { connect, type Client, type SliceView } from '../../src/index.ts'
import { serveControl } from '../daemon/control-fixture.ts'
import { until } from '../peer/fixtures/network.ts'
import { slice as description } from '../service/overlay.ts'

const VIEW: SliceView = {
  name: 'mesh',
  state: 'active',
  count: 3,
  createdAt: 0,
  renew: false,
  members: []
}

interface Making {
  readonly client: Client
  /** Resolves when the peer works on it. */
  readonly begun: Promise<void>
  /** Lets the peer be done, although it was told to give up. */
  readonly finish: () => void
  /** Resolves when the peer is done with the call. */
  readonly over: Promise<void>
  readonly deleted: readonly string[]
}

/** A daemon that makes a slice and heeds no abort, as one does that was done before it heard of it. */
async function making(t: ExecutionContext): Promise<Making> {
  const begun = Promise.withResolvers<void>()
  const finished = Promise.withResolvers<void>()
  const over = Promise.withResolvers<void>()
  const deleted: string[] = []
  const services = {
    async create(): Promise<SliceView> {
      begun.resolve()
      await finished.promise
      return VIEW
    },
    async delete(name: string): Promise<void> {
      deleted.push(name)
    }
  }
  const config = parseConfig('name: peer', 'test')
  const onShutdown = async (): Promise<void> => {}
  const parts = { services } as unknown as PeerParts
  const handlers = controlHandlers(() => parts, { config, startedAt: 0, onShutdown })
  const control = await serveControl({
    sliceCreate: (params, call) => handlers.sliceCreate(params, call).finally(() => over.resolve())
  })
  t.teardown(() => control[Symbol.asyncDispose]())
  const client = await connect(control)
  t.teardown(() => client.close())
  return {
    client,
    begun: begun.promise,
    finish: () => finished.resolve(),
    over: over.promise,
    deleted
  }
}

test('a slice that is done when its program has given up is given up', async (t) => {
  const { client, begun, finish, over, deleted } = await making(t)
  const controller = new AbortController()
  const creating = client.createSlice(description(), { signal: controller.signal })
  await begun
  controller.abort(new Error('enough'))
  await t.throwsAsync(creating, { message: 'enough' })
  finish()
  await over.catch(() => {})
  t.deepEqual(deleted, ['mesh'])
})

async function* said(...messages: readonly { readonly kept: boolean }[]): AsyncGenerator<Confirming> {
  yield* messages
}

test('who says nothing keeps what was made although nobody may be there; who is to confirm does so or has none', async (t) => {
  const { signal } = new AbortController()
  let asked = 0
  const ask = async (): Promise<void> => void (asked += 1)
  t.true(await new Confirmation(said(), signal).keeps(ask))
  t.is(asked, 0)
  t.true(await new Confirmation(said({ kept: false }, { kept: true }), signal).keeps(ask))
  t.is(asked, 1)
  const left = new Confirmation(said({ kept: false }), signal)
  t.false(await left.keeps(ask))
  t.true(left.gone.aborted)
  const unasked = async (): Promise<void> => {
    throw new Error('the stream broke')
  }
  t.false(await new Confirmation(said({ kept: false }, { kept: true }), signal).keeps(unasked))
  t.false(await new Confirmation(said(), AbortSignal.abort()).keeps(ask))
  t.is(getEventListeners(signal, 'abort').length, 0)
})

test('a program that gives up when it is told that its slice is made has none, and after that it has one', async (t) => {
  const early = await making(t)
  const controller = new AbortController()
  const { signal } = controller
  const onProgress = (): void => controller.abort(new Error('enough'))
  early.finish()
  await t.throwsAsync(early.client.createSlice(description(), { signal, onProgress }), { message: 'enough' })
  await until(() => early.deleted.length === 1, 'given up')

  const kept = await making(t)
  kept.finish()
  const mesh = await kept.client.createSlice(description())
  t.is(mesh.name, 'mesh')
  t.deepEqual(kept.deleted, [])
})

test('a program that is closed while its slice is made has none', async (t) => {
  const { client, begun, finish, over, deleted } = await making(t)
  const creating = t.throwsAsync(client.createSlice(description()), { code: 'INTERRUPTED' })
  await begun
  await client.close()
  await creating
  finish()
  await over.catch(() => {})
  t.deepEqual(deleted, ['mesh'])
})

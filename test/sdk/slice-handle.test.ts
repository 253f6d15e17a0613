import test, { type ExecutionContext } from 'ava'
import { execFile } from 'node:child_process'
import { getEventListeners } from 'node:events'
import { promisify } from 'node:util'
import { SlicenetError } from '../../src/base/errors.ts'
import { LIMITS } from '../../src/base/limits.ts'
import {
  connect,
  type MemberView,
  type SliceEvent,
  type SliceHandle,
  type SliceView
} from '../../src/index.ts'
import { controlHandlers } from '../../src/daemon/control-handlers.ts'
import type { PeerParts } from '../../src/daemon/compose.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { serveControl, type ControlFixture } from '../daemon/control-fixture.ts'
import { delegation, nodeKey } from '../daemon/signed-objects.ts'
import { until } from '../peer/fixtures/network.ts'
import { overlay, slice as description, type Overlay } from '../service/overlay.ts'

const MEMBER: MemberView = {
  node: nodeKey.principal,
  nodeName: 'n0',
  agent: nodeKey.principal,
  agentName: 'a0',
  lease: delegation.id,
  ticket: delegation.id,
  vserver: 'v0',
  address: '198.18.0.1',
  ports: [],
  notBefore: 0,
  notAfter: 10,
  state: 'running'
}
const VIEW: SliceView = {
  name: 'mesh',
  state: 'active',
  count: 1,
  createdAt: 7,
  notAfter: 10,
  renew: false,
  members: [MEMBER]
}

type Handlers = Parameters<typeof serveControl>[0]

async function held(
  t: ExecutionContext,
  handlers: Handlers
): Promise<{ mesh: SliceHandle; control: ControlFixture }> {
  const control = await serveControl({ sliceShow: async () => VIEW, ...handlers })
  t.teardown(() => control[Symbol.asyncDispose]())
  const client = await connect(control)
  t.teardown(() => client.close())
  return { mesh: await client.slice('mesh'), control }
}

/** Goes on until the caller is gone. */
async function forever(signal: AbortSignal): Promise<never> {
  signal.throwIfAborted()
  return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
}

/** A real service manager behind a control socket. */
async function served(t: ExecutionContext, one: Overlay): Promise<ControlFixture> {
  const parts = { services: one.services } as unknown as PeerParts
  const config = parseConfig('name: peer', 'test')
  const onShutdown = async (): Promise<void> => {}
  const control = await serveControl(controlHandlers(() => parts, { config, startedAt: 0, onShutdown }))
  t.teardown(() => control[Symbol.asyncDispose]())
  return control
}

test('what happens to a slice is told to every listener of its type, and to loops', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  const client = await connect(await served(t, one))
  t.teardown(() => client.close())
  const mesh = await client.createSlice(description({ count: 2 }))
  const renewed: string[] = []
  const ended: string[] = []
  const off = mesh.on('lease:renew', ({ member }) => renewed.push(member.nodeName))
  mesh.on('end', ({ reason }) => ended.push(reason))
  const events: SliceEvent[] = []
  const looping = (async () => {
    for await (const event of mesh.events()) events.push(event)
  })()
  // A listener hears of what happened since the handle was made, whenever its stream begins.
  await mesh.renew({ durationMs: 2 * 3_600_000 })
  await until(() => renewed.length === 2 && events.length === 2, 'told of both renewals')
  t.deepEqual(renewed, ['n0', 'n1'])
  t.is(mesh.notAfter, one.clock.now() + 2 * 3_600_000)
  off()
  await mesh.renew({ durationMs: 3 * 3_600_000 })
  await until(() => events.length === 4, 'told of two more')
  await mesh.delete()
  await looping
  await until(() => ended.length === 1, 'told of the end')
  t.deepEqual(renewed, ['n0', 'n1'])
  t.deepEqual(ended, ['deleted'])
  t.deepEqual(events.at(-1), { type: 'end', reason: 'deleted' })
})

test('a creation that is aborted gives up at the daemon what it held', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  const client = await connect(await served(t, one))
  t.teardown(() => client.close())
  const controller = new AbortController()
  let held = 0
  const making = client.createSlice(description({ count: 2 }), {
    signal: controller.signal,
    onProgress({ step }) {
      if (step !== 'redeem') return
      held = one.leases().length
      controller.abort(new Error('enough'))
    }
  })
  await t.throwsAsync(making, { message: 'enough' })
  t.is(held, 2)
  await until(() => one.leases().length === 0 && one.services.records().length === 0, 'given up')
  t.is(getEventListeners(controller.signal, 'abort').length, 0)
})

test('what happened before the stream began comes first', async (t) => {
  const member = { ...MEMBER, state: 'exited' as const, exitCode: 3 }
  const { mesh } = await held(t, {
    sliceWatch: async (_params, { emit }) => {
      await emit({ slice: { ...VIEW, state: 'partial', members: [member] } })
      await emit({ type: 'end', reason: 'expired' })
      return {}
    }
  })
  const events = await Array.fromAsync(mesh.events())
  t.deepEqual(
    events.map(({ type }) => type),
    ['slice:state', 'member:state', 'end']
  )
  t.is(mesh.state, 'partial')
  t.like(mesh.members[0], { state: 'exited', exitCode: 3 })
})

test('a slice that is gone, or another of its name, is the end of the one held', async (t) => {
  const gone = await held(t, {
    sliceWatch: async () => {
      throw new SlicenetError('NOT_FOUND', 'you have no slice named mesh')
    }
  })
  t.deepEqual(await Array.fromAsync(gone.mesh.events()), [{ type: 'end', reason: 'deleted' }])
  const other = await held(t, {
    sliceWatch: async (_params, { emit, signal }) => {
      await emit({ slice: { ...VIEW, createdAt: 8 } })
      return forever(signal)
    }
  })
  t.deepEqual(await Array.fromAsync(other.mesh.events()), [{ type: 'end', reason: 'deleted' }])
})

test('a daemon that dies ends events and logs with DAEMON_UNREACHABLE, and listeners hear of it', async (t) => {
  const entry = {
    node: MEMBER.node,
    nodeName: 'n0',
    stream: 'stdout' as const,
    time: 0,
    bytes: new Uint8Array(1)
  }
  const { mesh, control } = await held(t, {
    sliceWatch: async (_params, { emit, signal }) => {
      await emit({ slice: { ...VIEW, state: 'partial' } })
      return forever(signal)
    },
    sliceLogs: async (_params, { emit, signal }) => {
      await emit(entry)
      return forever(signal)
    }
  })
  const errors: unknown[] = []
  mesh.on('error', (error) => errors.push(error))
  const events = mesh.events()[Symbol.asyncIterator]()
  const logs = mesh.logs({ follow: true })[Symbol.asyncIterator]()
  t.like(await events.next(), { value: { type: 'slice:state' } })
  t.like(await logs.next(), { value: { nodeName: 'n0' } })
  const ends = [events.next(), logs.next()].map((next) => t.throwsAsync(next, { code: 'DAEMON_UNREACHABLE' }))
  await control[Symbol.asyncDispose]()
  await Promise.all(ends)
  await until(() => errors.length === 1, 'told of the error')
  t.like(errors[0], { code: 'DAEMON_UNREACHABLE' })
})

test('an error that nobody listens to ends the program, and one that is listened to does not', async (t) => {
  const run = async (listening: string): Promise<{ stdout: string }> => {
    const url = new URL('../../src/sdk/slice-listeners.ts', import.meta.url).href
    const program = `
      import { SliceListeners } from ${JSON.stringify(url)}
      const listeners = new SliceListeners(async function* () { throw new Error('the daemon is gone') })
      ${listening}
      listeners.on('end', () => {})
      setTimeout(() => console.log('went on'), 100)`
    return promisify(execFile)(process.execPath, ['--input-type=module', '-e', program])
  }
  await t.throwsAsync(run(''), { message: /the daemon is gone/ })
  t.is((await run("listeners.on('error', () => {})")).stdout, 'went on\n')
})

test('listeners share a stream, which ends with the last of them', async (t) => {
  let open = 0
  const { mesh } = await held(t, {
    sliceWatch: async (_params, { emit, signal }) => {
      open += 1
      await emit({ slice: VIEW })
      return forever(signal).finally(() => (open -= 1))
    }
  })
  const offs = (['end', 'lease:expire', 'end'] as const).map((type) => mesh.on(type, () => {}))
  await until(() => open === 1, 'one stream')
  for (const off of offs) off()
  await until(() => open === 0, 'none')
  mesh.on('end', () => {})
  await until(() => open === 1, 'one again')
  mesh.detach()
  await until(() => open === 0, 'none when let go of')
  t.pass()
})

test('an abort ends events and programs with its reason and leaves no listener', async (t) => {
  const { mesh } = await held(t, {
    sliceWatch: async (_params, { emit, signal }) => {
      await emit({ slice: VIEW })
      return forever(signal)
    },
    sliceExec: async (_params, { signal }) => forever(signal)
  })
  const controller = new AbortController()
  const { signal } = controller
  const running = mesh.exec('n0', ['sleep'], { signal })
  const ends = [Array.fromAsync(mesh.events({ signal })), running.exitCode()].map((end) =>
    t.throwsAsync(end, { message: 'enough' })
  )
  controller.abort(new Error('enough'))
  await Promise.all(ends)
  t.is(getEventListeners(signal, 'abort').length, 0)
})

test('a program is held up by a reader that is behind, and ended by one that leaves', async (t) => {
  const bytes = new Uint8Array(64 * 1024)
  let emitted = 0
  const ended = Promise.withResolvers<void>()
  const { mesh } = await held(t, {
    sliceExec: async (_params, { emit, signal }) => {
      signal.addEventListener('abort', () => ended.resolve())
      for (; emitted < 1000 && !signal.aborted; emitted++) await emit({ stream: 'stdout', bytes })
      return { exitCode: 0 }
    }
  })
  for await (const chunk of mesh.exec('n0', ['yes'])) {
    t.is(chunk.bytes.length, bytes.length)
    break
  }
  await ended.promise
  t.true(emitted < 200, `${emitted} chunks`)
})

test('output that is not read is thrown away when the exit code is asked for, and too much text is TOO_LARGE', async (t) => {
  const bytes = new Uint8Array(64 * 1024)
  const chunks = LIMITS.gatheredOutputBytesMax / bytes.length + 1
  const { mesh } = await held(t, {
    sliceExec: async (_params, { emit }) => {
      for (let each = 0; each < chunks; each++) await emit({ stream: 'stdout', bytes })
      return { exitCode: 3 }
    }
  })
  t.is(await mesh.exec('n0', ['yes']).exitCode(), 3)
  await t.throwsAsync(mesh.exec('n0', ['yes']).text(), { code: 'TOO_LARGE' })
  const running = mesh.exec('n0', ['yes'])
  const reading = Array.fromAsync(running)
  t.throws(() => running[Symbol.asyncIterator](), { instanceOf: TypeError })
  t.is((await reading).length, chunks)
  t.is(await running.exitCode(), 3)
})

test('a program reads what it is given in pieces, and its call fails with the source of that', async (t) => {
  let got = ''
  let largest = 0
  const { mesh } = await held(t, {
    sliceExec: async (_params, { input }) => {
      for await (const { bytes } of input) {
        if (bytes === undefined) return { exitCode: 0 }
        largest = Math.max(largest, bytes.length)
        got += Buffer.from(bytes).toString()
      }
      return { exitCode: 1 }
    }
  })
  const long = 'x'.repeat(150_000)
  const pieces = (async function* () {
    yield long
    yield Buffer.from('end')
  })()
  t.is(await mesh.exec('n0', ['cat'], { stdin: pieces }).exitCode(), 0)
  t.is(got, `${long}end`)
  t.is(largest, 64 * 1024)
  const broken = (async function* () {
    yield 'a'
    throw new Error('the disk is gone')
  })()
  await t.throwsAsync(mesh.exec('n0', ['cat'], { stdin: broken }).exitCode(), { message: 'the disk is gone' })
})

test('a program that ends before it has read all leaves a source that never ends', async (t) => {
  const { mesh } = await held(t, { sliceExec: async () => ({ exitCode: 0 }) })
  let isLeft = false
  const endless: AsyncIterable<string> = {
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise(() => {}),
      return: async () => {
        isLeft = true
        return { done: true, value: undefined }
      }
    })
  }
  t.is(await mesh.exec('n0', ['true'], { stdin: endless }).exitCode(), 0)
  await until(() => isLeft, 'left')
  t.pass()
})

test('a slice that could not be ended says so, and one that is gone already is no error', async (t) => {
  let code: 'NOT_FOUND' | 'BUSY' = 'NOT_FOUND'
  const control = await serveControl({
    sliceCreate: async () => VIEW,
    sliceDelete: async () => {
      throw new SlicenetError(code, 'no')
    }
  })
  t.teardown(() => control[Symbol.asyncDispose]())
  const client = await connect(control)
  {
    await using _gone = await client.createSlice(description())
  }
  const mesh = await client.createSlice(description())
  code = 'BUSY'
  await t.throwsAsync(async () => mesh[Symbol.asyncDispose](), { code: 'BUSY' })
})

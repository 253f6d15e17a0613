import test from 'ava'
import { once } from 'node:events'
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { createConnection, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SlicenetError } from '../../src/base/errors.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { silentLogger } from '../../src/base/log.ts'
import { createControlClient } from '../../src/daemon/control-client.ts'
import { createControlServer } from '../../src/daemon/control-server.ts'
import { fakeHandlers, serveControl } from './control-fixture.ts'

const CHUNK = new Uint8Array(64 * 1024).fill(7)
const PROGRAM = { argv: ['cat'], env: {} }

test('a call is answered, and its errors come back whole', async (t) => {
  await using control = await serveControl({
    sliceList: async () => ({ slices: [] }),
    find: async () => {
      const nodes = [{ node: 'n', name: 'a', failed: ['node.cpu.free >= 200'] }]
      throw new SlicenetError('NO_MATCH', 'no node matches', { hint: 'ask for less', details: { nodes } })
    }
  })
  const call = createControlClient(control)
  t.deepEqual(await call('sliceList', {}), { slices: [] })
  const error = await t.throwsAsync(call('find', { query: 'false' }), { instanceOf: SlicenetError })
  t.is(error?.code, 'NO_MATCH')
  t.is(error?.hint, 'ask for less')
  t.deepEqual(error?.details?.['nodes'], [{ node: 'n', name: 'a', failed: ['node.cpu.free >= 200'] }])
})

test('a program gets all of its standard input and its end, and its output comes back in order', async (t) => {
  await using control = await serveControl({
    async sliceExec(_, call) {
      let size = 0
      for await (const { bytes } of call.input) {
        if (bytes === undefined) break
        size += bytes.length
        await call.emit({ stream: 'stdout', bytes })
      }
      await call.emit({ stream: 'stderr', bytes: Buffer.from(`${size} bytes`) })
      return { exitCode: 3 }
    }
  })
  async function* input(): AsyncGenerator<{ bytes?: Uint8Array }> {
    for (let i = 0; i < 64; i++) yield { bytes: CHUNK }
    yield {}
  }
  let size = 0
  let said = ''
  const call = createControlClient(control)
  const result = await call(
    'sliceExec',
    { slice: 'mesh', program: PROGRAM },
    {
      input: input(),
      onItem({ stream, bytes }) {
        if (stream === 'stdout') size += bytes.length
        else said += Buffer.from(bytes).toString()
      }
    }
  )
  t.deepEqual(result, { exitCode: 3 })
  t.is(size, 64 * CHUNK.length)
  t.is(said, `${size} bytes`)
})

test('a result arrives although the caller goes on writing and nobody reads it', async (t) => {
  await using control = await serveControl({ sliceExec: async () => ({ exitCode: 0 }) })
  const ended = new AbortController()
  async function* input(): AsyncGenerator<{ bytes?: Uint8Array }> {
    for (let i = 0; i < 2000 && !ended.signal.aborted; i++) yield { bytes: CHUNK }
  }
  const call = createControlClient(control)
  for (let i = 0; i < 5; i++) {
    const result = await call('sliceExec', { slice: 'mesh', program: PROGRAM }, { input: input() })
    t.deepEqual(result, { exitCode: 0 })
  }
  ended.abort()
})

test('a reader that does not read holds the writer up', async (t) => {
  let emitted = 0
  const isStuck = Promise.withResolvers<void>()
  await using control = await serveControl({
    async sliceExec(_, call) {
      for (; emitted < 1000; emitted++) {
        const taken = call.emit({ stream: 'stdout', bytes: CHUNK })
        const isTaken = await Promise.race([
          taken.then(() => true),
          new Promise((resolve) => setTimeout(resolve, 200))
        ])
        if (isTaken !== true) isStuck.resolve()
        await taken
      }
      return { exitCode: 0 }
    }
  })
  let received = 0
  const call = createControlClient(control)
  await call(
    'sliceExec',
    { slice: 'mesh', program: PROGRAM },
    {
      async onItem() {
        if (received++ === 0) await isStuck.promise
      }
    }
  )
  t.is(received, 1000)
})

test('a handler learns that its caller has given up, although it says nothing', async (t) => {
  const began = Promise.withResolvers<void>()
  const aborted = Promise.withResolvers<void>()
  await using control = await serveControl({
    async sliceLogs(_, call) {
      began.resolve()
      await once(call.signal, 'abort')
      aborted.resolve()
      return {}
    }
  })
  const controller = new AbortController()
  const reason = new Error('enough')
  const call = createControlClient(control)
  const calling = call('sliceLogs', { slice: 'mesh', follow: true }, { signal: controller.signal })
  await began.promise
  controller.abort(reason)
  t.is(await t.throwsAsync(calling), reason)
  await aborted.promise
})

test('no daemon, a stale socket and a directory that is not there are all DAEMON_UNREACHABLE', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-control-'))
  const error = await t.throwsAsync(
    createControlClient({ socketPath: join(directory, 'a/b') })('sliceList', {}),
    {
      instanceOf: SlicenetError
    }
  )
  t.is(error?.code, 'DAEMON_UNREACHABLE')
  t.regex(error?.hint ?? '', /slicenet daemon/)
  const stale = join(directory, 'stale')
  await leaveStaleSocket(stale)
  await t.throwsAsync(createControlClient({ socketPath: stale })('sliceList', {}), {
    code: 'DAEMON_UNREACHABLE'
  })
  await rm(directory, { recursive: true })
})

test('a daemon that goes away in the middle of a call is DAEMON_UNREACHABLE', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-control-'))
  const socketPath = join(directory, 's')
  const server = createServer((socket) => socket.once('data', () => socket.destroy())).listen(socketPath)
  await once(server, 'listening')
  await t.throwsAsync(createControlClient({ socketPath })('sliceList', {}), { code: 'DAEMON_UNREACHABLE' })
  server.close()
  await rm(directory, { recursive: true })
})

test('the socket is for its owner alone, and is gone after the daemon', async (t) => {
  const control = await serveControl({})
  const { mode } = await stat(control.socketPath)
  t.is(mode & 0o777, 0o600)
  await control[Symbol.asyncDispose]()
  await t.throwsAsync(stat(control.socketPath), { code: 'ENOENT' })
})

test('a second daemon is refused, and the first answers on', async (t) => {
  await using control = await serveControl({ sliceList: async () => ({ slices: [] }) })
  const second = createControlServer({ logger: silentLogger }, { ...control, handlers: fakeHandlers({}) })
  await t.throwsAsync(second.start(), { code: 'DAEMON_RUNNING' })
  await second.stop()
  t.deepEqual(await createControlClient(control)('sliceList', {}), { slices: [] })
})

test('a socket that a killed daemon left behind is taken over; another file is not', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-control-'))
  const socketPath = join(directory, 's')
  await leaveStaleSocket(socketPath)
  const handlers = fakeHandlers({ sliceList: async () => ({ slices: [] }) })
  const server = createControlServer({ logger: silentLogger }, { socketPath, handlers })
  await server.start()
  t.deepEqual(await createControlClient({ socketPath })('sliceList', {}), { slices: [] })
  await server.stop()
  await writeFile(socketPath, 'precious')
  await t.throwsAsync(server.start(), { code: 'CONFIG_INVALID' })
  await rm(directory, { recursive: true })
})

test('starting and stopping twice does nothing more, and a stopped server starts again', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-control-'))
  const socketPath = join(directory, 's')
  const handlers = fakeHandlers({ sliceList: async () => ({ slices: [] }) })
  const server = createControlServer({ logger: silentLogger }, { socketPath, handlers })
  await server.stop()
  for (let round = 0; round < 2; round++) {
    await server.start()
    await server.start()
    t.deepEqual(await createControlClient({ socketPath })('sliceList', {}), { slices: [] })
    await server.stop()
    await server.stop()
  }
  await rm(directory, { recursive: true })
})

test('stopping aborts the calls under way', async (t) => {
  const began = Promise.withResolvers<void>()
  const control = await serveControl({
    async sliceLogs(_, call) {
      began.resolve()
      await once(call.signal, 'abort')
      throw call.signal.reason
    }
  })
  const calling = createControlClient(control)('sliceLogs', { slice: 'mesh', follow: true })
  const failure = t.throwsAsync(calling, { code: 'DAEMON_UNREACHABLE' })
  await began.promise
  await control[Symbol.asyncDispose]()
  await failure
})

/** Handlers that go on until they are released, and a promise of so many that run. */
function holding(count: number): {
  readonly hold: () => Promise<void>
  readonly allBegan: Promise<void>
  readonly release: () => void
} {
  const released = Promise.withResolvers<void>()
  const began = Promise.withResolvers<void>()
  let begun = 0
  return {
    async hold() {
      if (++begun === count) began.resolve()
      await released.promise
    },
    allBegan: began.promise,
    release: () => released.resolve()
  }
}

test('calls beyond the limit are refused as BUSY, and served again when others have ended', async (t) => {
  const { hold, allBegan, release } = holding(LIMITS.controlCallsMax)
  await using control = await serveControl({
    async leaseList() {
      await hold()
      return { leases: [] }
    },
    sliceList: async () => ({ slices: [] })
  })
  const call = createControlClient(control)
  const waiting = Array.from({ length: LIMITS.controlCallsMax }, () => call('leaseList', {}))
  await allBegan
  await t.throwsAsync(call('sliceList', {}), { code: 'BUSY' })
  release()
  await Promise.all(waiting)
  t.deepEqual(await call('sliceList', {}), { slices: [] })
})

test('streams that last keep no other call out, and have a limit of their own', async (t) => {
  const { hold, allBegan, release } = holding(LIMITS.controlStreamsMax)
  await using control = await serveControl({
    async sliceLogs() {
      await hold()
      return {}
    },
    sliceList: async () => ({ slices: [] })
  })
  const call = createControlClient(control)
  const follow = async (): Promise<unknown> => call('sliceLogs', { slice: 'mesh', follow: true })
  const waiting = Array.from({ length: LIMITS.controlStreamsMax }, follow)
  await allBegan
  t.deepEqual(await call('sliceList', {}), { slices: [] })
  await t.throwsAsync(follow(), { code: 'BUSY' })
  release()
  await Promise.all(waiting)
})

test('what does not keep to the protocol is answered with an error or dropped, and harms no other', async (t) => {
  await using control = await serveControl({ sliceList: async () => ({ slices: [] }) })
  for (const bytes of ['GET / HTTP/1.1\r\n\r\n', '\u0001\u0000', '\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff']) {
    const socket = createConnection(control.socketPath)
    socket.on('error', () => {})
    socket.end(Buffer.from(bytes, 'latin1'))
    socket.resume()
    await once(socket, 'close')
  }
  t.deepEqual(await createControlClient(control)('sliceList', {}), { slices: [] })
})

/** As after a kill: the file is there, and nobody listens. */
async function leaveStaleSocket(path: string): Promise<void> {
  const server = createServer().listen(`${path}.alive`)
  await once(server, 'listening')
  const { rename } = await import('node:fs/promises')
  await rename(`${path}.alive`, path)
  server.close()
  await once(server, 'close')
}

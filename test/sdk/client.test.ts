import test from 'ava'
import { getEventListeners } from 'node:events'
import { SlicenetError } from '../../src/base/errors.ts'
import * as slicenet from '../../src/index.ts'
import { serveControl } from '../daemon/control-fixture.ts'
import { delegation, nodeKey } from '../daemon/signed-objects.ts'

const VIEW: slicenet.SliceView = {
  name: 'mesh',
  state: 'active',
  count: 1,
  createdAt: 0,
  renew: false,
  members: []
}
const MEMBER = {
  node: nodeKey.principal,
  nodeName: 'node1',
  lease: delegation.id,
  notAfter: 1,
  renewed: true
}
const DESCRIPTION = { ...slicenet.parseSliceFile('name: mesh\nimage: debian\n').description, files: [] }

test('the public list is what programs were told of', (t) => {
  t.deepEqual(Object.keys(slicenet).sort(), [
    'ERROR_CODES',
    'SlicenetError',
    'connect',
    'isErrorCode',
    'loadSliceDescription',
    'parseSliceFile'
  ])
})

test('a client makes, shows and deletes slices, and hears of the progress', async (t) => {
  const asked: unknown[] = []
  await using control = await serveControl({
    sliceCreate: async (description, { emit }) => {
      asked.push(description.name)
      await emit({ step: 'launch', message: 'runs', ms: 3 })
      return VIEW
    },
    sliceList: async () => ({ slices: [VIEW] }),
    sliceShow: async ({ slice }) => {
      asked.push(slice)
      return VIEW
    },
    sliceRenew: async (params) => {
      asked.push(params)
      return { slice: 'mesh', notAfter: 1, members: [MEMBER] }
    },
    sliceDelete: async () => ({ deleted: 1, unreachable: [] })
  })
  const client = await slicenet.connect({ socketPath: control.socketPath })
  const steps: string[] = []
  const onProgress = ({ step }: slicenet.Progress): void => void steps.push(step)
  const slice = await client.createSlice(DESCRIPTION, { onProgress })
  t.deepEqual(slice.view, VIEW)
  t.deepEqual(JSON.parse(JSON.stringify(slice)), VIEW)
  t.deepEqual(steps, ['launch'])
  t.deepEqual(await client.listSlices(), [VIEW])
  t.deepEqual(await client.showSlice('mesh'), VIEW)
  t.deepEqual(await client.deleteSlice('mesh'), { deleted: 1, unreachable: [] })
  t.is((await client.renewSlice('mesh', { durationMs: 60_000 })).notAfter, 1)
  await client.renewSlice('mesh')
  await slice.renew({ durationMs: 60_000 })
  t.deepEqual(asked, [
    'mesh',
    'mesh',
    { slice: 'mesh', durationMs: 60_000 },
    { slice: 'mesh' },
    { slice: 'mesh', durationMs: 60_000 }
  ])
})

test('errors come with their codes, and an abort with its reason', async (t) => {
  await using control = await serveControl({
    find: async () => {
      throw new SlicenetError('NO_MATCH', 'none of 0 nodes matches', { details: { nodes: [] } })
    },
    status: async (_params, { signal }) =>
      new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  })
  const client = await slicenet.connect({ socketPath: control.socketPath })
  const error = await t.throwsAsync<SlicenetError>(client.find('true'), {
    instanceOf: SlicenetError,
    code: 'NO_MATCH'
  })
  t.deepEqual(error.details, { nodes: [] })
  const controller = new AbortController()
  const asking = client.status({ signal: controller.signal })
  controller.abort(new Error('enough'))
  await t.throwsAsync(asking, { message: 'enough' })
  t.is(getEventListeners(controller.signal, 'abort').length, 0)
})

test('without a daemon there is no client', async (t) => {
  await t.throwsAsync(slicenet.connect({ socketPath: '/nonexistent/control.sock' }), {
    code: 'DAEMON_UNREACHABLE'
  })
})

test('a client that is closed ends its calls with INTERRUPTED, and those of no other', async (t) => {
  const release = Promise.withResolvers<void>()
  await using control = await serveControl({
    sliceList: async () => {
      await release.promise
      return { slices: [] }
    }
  })
  const one = await slicenet.connect({ socketPath: control.socketPath })
  const other = await slicenet.connect({ socketPath: control.socketPath })
  const interrupted = t.throwsAsync(one.listSlices(), { code: 'INTERRUPTED' })
  const served = other.listSlices()
  await Promise.all([one.close(), one.close()])
  await interrupted
  await t.throwsAsync(one.listSlices(), { instanceOf: TypeError })
  release.resolve()
  t.deepEqual(await served, [])
})

test('what is no client is a mistake of the programmer', async (t) => {
  await t.throwsAsync(slicenet.connect({ socketPath: '/tmp/x.sock', embedded: true }), {
    instanceOf: TypeError
  })
})

test('a description that is none is told field by field before anybody is asked', async (t) => {
  await using control = await serveControl({})
  const client = await slicenet.connect({ socketPath: control.socketPath })
  const wrong = { ...DESCRIPTION, name: 'Mesh!', count: 0 }
  for (const asking of [client.createSlice(wrong), client.plan(wrong)]) {
    const error = await t.throwsAsync<SlicenetError>(asking, { code: 'SLICE_FILE_INVALID' })
    const problems = error.details?.['problems'] as readonly { readonly field: string }[]
    t.deepEqual(
      problems.map(({ field }) => field),
      ['name', 'count']
    )
  }
})

test('a plan is gathered from what is streamed, and may be that of another broker', async (t) => {
  const member = { node: nodeKey.principal, name: 'n0', agent: nodeKey.principal }
  const rejection = { node: nodeKey.principal, name: 'n1', failed: [{ clause: 'false' }] }
  const asked: unknown[] = []
  await using control = await serveControl({
    async plan({ want, broker }, { emit }) {
      asked.push([want.count, broker])
      await emit({ member })
      await emit({ rejection })
      return { satisfiable: true }
    }
  })
  const client = await slicenet.connect({ socketPath: control.socketPath })
  t.deepEqual(await client.plan(DESCRIPTION), {
    satisfiable: true,
    members: [member],
    rejections: [rejection]
  })
  await client.plan(DESCRIPTION, { broker: 'any' })
  t.deepEqual(asked, [
    [1, undefined],
    [1, 'any']
  ])
})

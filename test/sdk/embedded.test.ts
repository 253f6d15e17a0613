import test, { type ExecutionContext } from 'ava'
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import {
  connect,
  parseSliceFile,
  type Client,
  type NodeEvent,
  type SliceDescription,
  type SliceEvent
} from '../../src/index.ts'
import { until } from '../peer/fixtures/network.ts'
import { startOverlayNode, type OverlayNode, type OverlayNodeInit } from './fixtures/overlay-node.ts'

const run = promisify(execFile)

async function startNode(t: ExecutionContext, init?: OverlayNodeInit): Promise<OverlayNode> {
  const node = await startOverlayNode(init)
  t.teardown(() => node.stop())
  return node
}

async function stateDirectory(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-embedded-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return directory
}

async function embedded(t: ExecutionContext, node: OverlayNode): Promise<Client> {
  const settings = { stateDirectory: await stateDirectory(t), bootstrap: [node.address] }
  const client = await connect({ embedded: settings })
  t.teardown(() => client.close())
  return client
}

/** Resolves when the node is known. */
async function discovered(client: Client, query?: string): Promise<NodeEvent> {
  for await (const event of client.discover(query)) return event
  throw new Error('the discovery ended')
}

function slice(text = 'program: { argv: [mesh] }'): SliceDescription {
  const { description } = parseSliceFile(`name: mesh\nimage: debian\n${text}\n`)
  return { ...description, files: [] }
}

test.serial(
  'a peer in the process discovers a node of the overlay, what changes of it, and that it is gone',
  async (t) => {
    const node = await startNode(t, { advertLife: '2s' })
    const client = await embedded(t, node)
    const events = client.discover('node.region == "eu"')[Symbol.asyncIterator]()
    const first = await events.next()
    t.like(first.value, {
      type: 'match',
      node: { id: node.principal, name: 'n0', attributes: { region: 'eu' } }
    })
    const next = async (isIt: (event: NodeEvent) => boolean): Promise<void> => {
      for (;;) {
        const { value } = await events.next()
        if (value === undefined) throw new Error('the discovery ended')
        if (isIt(value)) return
      }
    }
    const { free } = first.value?.node ?? {}
    {
      await using _mesh = await client.createSlice(slice())
      await next(({ type, node }) => type === 'update' && node.free.cpuMillis < (free?.cpuMillis ?? 0))
    }
    await next(({ type, node }) => type === 'update' && node.free.cpuMillis === free?.cpuMillis)
    await node.stop()
    await next(({ type }) => type === 'expire')
    await events.return?.()
    t.pass()
  }
)

test.serial('a plan names the members of a slice, or of each node what it fails', async (t) => {
  const node = await startNode(t)
  const client = await embedded(t, node)
  await discovered(client)
  const good = await client.plan(slice())
  t.like(good, { satisfiable: true, members: [{ node: node.principal, name: 'n0', agent: node.principal }] })
  t.deepEqual(good.rejections, [])
  const bad = await client.plan(slice('query: node.region == "us"'))
  t.like(bad, { satisfiable: false, members: [] })
  t.is(typeof bad.reason, 'string')
  t.deepEqual(
    bad.rejections.map(({ name, failed }) => ({ name, failed: [...failed] })),
    [{ name: 'n0', failed: [{ clause: 'node.region == "us"', value: '"eu"' }] }]
  )
  t.is(node.leases(), 0)
  await t.throwsAsync(client.plan({ ...slice(), query: 'node.' }), { code: 'QUERY_INVALID' })
})

test.serial('a slice is used and told of while it is held, and ends with its block', async (t) => {
  const node = await startNode(t)
  const client = await embedded(t, node)
  await discovered(client)
  const heard: SliceEvent['type'][] = []
  {
    await using mesh = await client.createSlice(slice())
    t.is(node.leases(), 1)
    mesh.on('lease:renew', ({ type, member }) => {
      t.deepEqual(member, mesh.members[0])
      heard.push(type)
    })
    mesh.on('end', ({ type }) => heard.push(type))
    t.deepEqual(await mesh.exec('n0', ['echo', 'hello', 'there']).text(), {
      exitCode: 0,
      stdout: 'hello there\n',
      stderr: ''
    })
    t.is((await mesh.exec(mesh.members[0], ['cat'], { stdin: 'to the cat' }).text()).stdout, 'to the cat')
    t.is(await mesh.exec(undefined, ['false']).exitCode(), 1)
    await t.throwsAsync(mesh.exec('n9', ['echo']).exitCode(), { code: 'NOT_FOUND' })
    await t.throwsAsync(mesh.exec('n0', ['nothing']).text(), { code: 'PROGRAM_NOT_FOUND' })
    const printed = await Array.fromAsync(mesh.logs())
    t.is(Buffer.concat(printed.map(({ bytes }) => bytes)).toString(), 'up\n')
    const { notAfter } = await mesh.renew({ durationMs: 2 * 3_600_000 })
    await until(() => mesh.notAfter === notAfter, 'told of the renewal')
    t.deepEqual(heard, ['lease:renew'])
    t.is((await mesh.refresh()).notAfter, notAfter)
  }
  t.deepEqual(heard, ['lease:renew', 'end'])
  t.is(node.leases(), 0)
  t.deepEqual(await client.listSlices(), [])
})

test.serial(
  'a slice that is detached goes on, and one that was there before is only let go of',
  async (t) => {
    const node = await startNode(t)
    const client = await embedded(t, node)
    await discovered(client)
    {
      await using mesh = await client.createSlice(slice())
      mesh.detach()
    }
    t.is(node.leases(), 1)
    {
      await using mesh = await client.slice('mesh')
      t.is(mesh.members.length, 1)
    }
    t.is(node.leases(), 1)
    const mesh = await client.slice('mesh')
    t.deepEqual(await mesh.delete(), { deleted: 1, unreachable: [] })
    await t.throwsAsync(client.slice('mesh'), { code: 'NOT_FOUND' })
  }
)

test.serial(
  'a creation that is aborted gives up what it held, and one that is only left does not',
  async (t) => {
    const node = await startNode(t)
    const client = await embedded(t, node)
    await discovered(client)
    const controller = new AbortController()
    let held = 0
    const making = client.createSlice(slice(), {
      signal: controller.signal,
      onProgress({ step }) {
        if (step !== 'redeem') return
        held = node.leases()
        controller.abort(new Error('enough'))
      }
    })
    await t.throwsAsync(making, { message: 'enough' })
    t.is(held, 1)
    await until(() => node.leases() === 0, 'given up')
    await until(async () => (await client.listSlices()).length === 0, 'forgotten')

    const left = Promise.withResolvers<never>()
    const made = client.createSlice(slice(), {
      onProgress({ step }) {
        if (step === 'redeem') left.reject(new Error('enough'))
      }
    })
    await t.throwsAsync(Promise.race([made, left.promise]), { message: 'enough' })
    await made
    t.is(node.leases(), 1)
  }
)

test.serial('closing a client waits until what it began is given up', async (t) => {
  const node = await startNode(t)
  const client = await embedded(t, node)
  await discovered(client)
  const begun = Promise.withResolvers<void>()
  const making = client.createSlice(slice(), {
    onProgress({ step }) {
      if (step === 'redeem') begun.resolve()
    }
  })
  const interrupted = t.throwsAsync(making, { code: 'INTERRUPTED' })
  await begun.promise
  t.is(node.leases(), 1)
  await client.close()
  await interrupted
  t.is(node.leases(), 0)
})

test.serial('two peers in one process do not interfere, unless they were to share their state', async (t) => {
  const node = await startNode(t)
  const directory = await stateDirectory(t)
  const one = await connect({ embedded: { stateDirectory: directory, bootstrap: [node.address] } })
  t.teardown(() => one.close())
  const other = await embedded(t, node)
  await t.throwsAsync(connect({ embedded: { stateDirectory: directory } }), { code: 'STORE_LOCKED' })
  const [status, otherStatus] = await Promise.all([one.status(), other.status()])
  t.not(status.principal, otherStatus.principal)
  const broken = t.throwsAsync(
    (async () => {
      for await (const _event of one.discover());
    })(),
    { code: 'INTERRUPTED' }
  )
  await discovered(other)
  await one.close()
  await broken
  t.like(await discovered(other), { node: { name: 'n0' } })
  const again = await connect({ embedded: { stateDirectory: directory, bootstrap: [node.address] } })
  t.is((await again.status()).principal, status.principal)
  await again.close()
})

test.serial('what cannot be started says why', async (t) => {
  const directory = await stateDirectory(t)
  await t.throwsAsync(
    connect({ embedded: { stateDirectory: directory, bootstrap: ['/ip4/127.0.0.1/tcp/1'] } }),
    {
      code: 'CONFIG_INVALID'
    }
  )
  const signal = AbortSignal.abort(new Error('enough'))
  await t.throwsAsync(connect({ embedded: { stateDirectory: directory } }, { signal }), { message: 'enough' })
})

test.serial('a program that closes its client leaves nothing open and ends by itself', async (t) => {
  const node = await startNode(t)
  const program = fileURLToPath(new URL('fixtures/embedded-program.ts', import.meta.url))
  const argv = [program, await stateDirectory(t), node.address]
  const { stdout } = await run(process.execPath, argv, { timeout: 60_000 })
  t.deepEqual(stdout.trim().split('\n'), ['match n0', 'closed', 'nothing left'])
})

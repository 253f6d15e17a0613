import { existsSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { systemClock as clock } from '../../src/base/clock.ts'
import { silentLogger as logger } from '../../src/base/log.ts'
import { systemRandom as random } from '../../src/base/random.ts'
import { ComposedPeer } from '../../src/daemon/compose.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { FakeEnforcer } from '../../src/enforce/fake-enforcer.ts'
import { ImageStore } from '../../src/enforce/image-store.ts'
import { imageProtocol } from '../../src/protocol/image-protocol.ts'
import { parseSliceFile } from '../../src/service/slice-file.ts'
import { MemoryStore } from '../../src/store/memory-store.ts'
import { until } from '../peer/fixtures/network.ts'
import { makeKey } from '../ticket/fixtures.ts'
import { ownDirectory } from './own-names.ts'

interface Started {
  readonly peer: ComposedPeer
  readonly images: ImageStore
}

/** A peer that is node and agent in one, with a monitor that only looks whether the image is there; or none of both. */
async function start(
  t: ExecutionContext,
  name: string,
  bootstrap: readonly ComposedPeer[],
  node?: Readonly<Record<string, unknown>>
): Promise<Started> {
  const directory = await ownDirectory('leased')
  const imagesDirectory = join(directory, 'images')
  const images = new ImageStore({ clock }, { directory: imagesDirectory })
  await images.start()
  const key = makeKey()
  const roles = {
    node: {
      address: '127.0.0.1',
      uplink: { device: 'lo' },
      agents: [{ address: `/ip4/127.0.0.1/tcp/1/p2p/${key.principal}` }],
      ...node
    },
    agent: {}
  }
  const config = {
    name,
    region: 'eu',
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: bootstrap.flatMap(({ parts }) => parts.host.multiaddrs()),
    advertEvery: '1s',
    ...(node === undefined ? {} : roles)
  }
  const hasImage = (id: string): boolean => existsSync(join(imagesDirectory, id.replace(':', '-'), 'root'))
  const enforcer = new FakeEnforcer({ clock }, { hasImage })
  const peer = new ComposedPeer(
    { key, store: new MemoryStore(), clock, random, logger },
    {
      config: parseConfig(JSON.stringify(config), 'test'),
      stateDirectory: directory,
      imagesDirectory,
      shortLived: false,
      decorators: { enforcer: () => enforcer }
    }
  )
  t.teardown(async () => {
    await peer.stop()
    await rm(directory, { recursive: true, force: true })
  })
  await peer.start()
  return { peer, images }
}

async function importOne({ images }: Started): Promise<string> {
  const root = await ownDirectory('leased')
  try {
    await mkdir(join(root, 'bin'))
    await writeFile(join(root, 'bin/program'), 'x'.repeat(500_000))
    return (await images.import(root, { name: 'special' })).id
  } finally {
    await rm(root, { recursive: true })
  }
}

const parsed = parseSliceFile('{ name: mesh, image: special, query: node.name == "lacking", lease: 1h }')
const description = { ...parsed.description, files: [] }

test('a slice gets a node that lacks its image, which fetches it of one that has it', async (t) => {
  const having = await start(t, 'having', [], {})
  const id = await importOne(having)
  const lacking = await start(t, 'lacking', [having.peer], { images: { fetch: true } })
  const { peer: researcher } = await start(t, 'researcher', [having.peer, lacking.peer])
  const { broker, services } = researcher.parts
  await until(
    async () => (await broker.find('node.images.exists(i, i == "special")')).found.length > 0,
    'told'
  )
  await until(async () => (await broker.find('node.fetchesImages == "yes"')).found.length > 0, 'told as well')
  t.false(await lacking.images.has(id))
  const { members } = await services.create(description)
  t.deepEqual(
    members.map(({ nodeName }) => nodeName),
    ['lacking']
  )
  t.true(await lacking.images.verify(id))
})

test('where fetching is not turned on such a slice is not to be had, and no image comes', async (t) => {
  const having = await start(t, 'having', [], { images: { serve: false } })
  const id = await importOne(having)
  const lacking = await start(t, 'lacking', [having.peer], {})
  const { peer: researcher } = await start(t, 'researcher', [having.peer, lacking.peer])
  const { broker, services, host } = researcher.parts
  await until(
    async () => (await broker.find('node.images.exists(i, i == "special")')).found.length > 0,
    'told'
  )
  await until(async () => (await broker.find('node.name == "lacking"')).found.length > 0, 'told as well')
  await t.throwsAsync(services.create(description), { code: 'IMAGE_MISSING' })
  t.false(await lacking.images.has(id))
  const call = (node: Started) => host.caller(imageProtocol, node.peer.parts.host.principal)
  await t.throwsAsync(call(having)('fetch', { image: id, offset: 0 }), { code: 'PROTOCOL_ERROR' })
  await t.throwsAsync(call(lacking)('fetch', { image: id, offset: 0 }), { code: 'IMAGE_MISSING' })
})

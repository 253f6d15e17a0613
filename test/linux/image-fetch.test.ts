import { createHash, randomBytes } from 'node:crypto'
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { systemClock as clock } from '../../src/base/clock.ts'
import { SlicenetError } from '../../src/base/errors.ts'
import { run } from '../../src/base/host-program.ts'
import { silentLogger } from '../../src/base/log.ts'
import { systemRandom } from '../../src/base/random.ts'
import { ComposedPeer } from '../../src/daemon/compose.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { supplyHandlers } from '../../src/daemon/supply-handlers.ts'
import { ImageStore } from '../../src/enforce/image-store.ts'
import { imageSources } from '../../src/node/image-sources.ts'
import { imageHandlers } from '../../src/node/image-serving.ts'
import { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import { imageProtocol } from '../../src/protocol/image-protocol.ts'
import type { Call, Handlers } from '../../src/protocol/method.ts'
import { MemoryStore } from '../../src/store/memory-store.ts'
import { nodeAdvert, startPeer, type TestPeer } from '../peer/fixtures/network.ts'
import { NO_RESOURCES } from '../../src/ticket/resources.ts'
import { makeKey } from '../ticket/fixtures.ts'
import { tarOf, type TarItem } from './fixtures/oci-layout.ts'
import { ownDirectory } from './own-names.ts'

let scratch: string

test.beforeEach(async () => {
  scratch = await ownDirectory('fetch')
})

test.afterEach.always(async () => {
  await rm(scratch, { recursive: true, force: true })
})

type Fetch = Handlers<typeof imageProtocol.methods>['fetch']

/** A store with one image of some MiB. */
async function filled(name: string, mebibytes = 4): Promise<{ images: ImageStore; id: string }> {
  const root = join(scratch, `root-${name}`)
  await mkdir(join(root, 'bin'), { recursive: true })
  await writeFile(join(root, 'bin/data'), randomBytes(mebibytes * 1024 * 1024))
  const images = new ImageStore({ clock }, { directory: join(scratch, `store-${name}`) })
  await images.start()
  const { id } = await images.import(root)
  return { images, id }
}

async function serve(t: ExecutionContext, fetch: Fetch): Promise<TestPeer> {
  const peer = await startPeer(t)
  await peer.host.serve(imageProtocol, { fetch })
  return peer
}

/** A whole peer over a store of its own, that knows these and what they say of images. */
async function fetcher(t: ExecutionContext, id: string, sources: readonly TestPeer[], name = 'own') {
  const directory = join(scratch, `store-${name}`)
  const peer = new ComposedPeer(
    { key: makeKey(), store: new MemoryStore(), clock, random: systemRandom, logger: silentLogger },
    {
      config: parseConfig(
        'name: test\nlisten: [/ip4/127.0.0.1/tcp/0]\nbootstrap: []\nmeasure: { place: false }',
        'test'
      ),
      stateDirectory: join(scratch, name),
      imagesDirectory: directory,
      shortLived: false
    }
  )
  t.teardown(async () => peer.stop())
  await peer.start()
  for (const [index, { key, host }] of sources.entries()) {
    const advert = nodeAdvert(key, { name: `n${index}`, images: { it: id }, multiaddrs: host.multiaddrs() })
    peer.parts.directory.learn(advert.bytes)
    await peer.parts.host.addAddresses(host.principal, host.multiaddrs())
  }
  return {
    peer,
    images: new ImageStore({ clock }, { directory }),
    left: async () => (await readdir(directory)).filter((entry) => entry.startsWith('import-')),
    partial: async () => readdir(join(directory, 'partial')),
    fetch: async (options = {}) => peer.parts.imageSupply.fetch(id, options)
  }
}

test.serial('a node has an image of another over libp2p, whole and the same', async (t) => {
  const { images, id } = await filled('a')
  const source = await serve(t, imageHandlers({ images, clock }).fetch)
  const own = await fetcher(t, id, [source])
  const fetched = await own.fetch({ name: 'it' })
  t.like(fetched, { id, names: ['it'] })
  t.true(await own.images.verify(id))
  const [one, other] = await Promise.all([images.open(id), own.images.open(id)])
  t.is(await run('diff', ['--recursive', one, other]), '')
  t.deepEqual(await own.partial(), [])
  t.deepEqual(await own.left(), [])
})

test.serial('what was cut off is resumed at its offset with another peer', async (t) => {
  const { images, id } = await filled('a')
  const offsets: number[] = []
  const honest = imageHandlers({ images, clock }).fetch
  const cutting: Fetch = async (params, call) => {
    offsets.push(params.offset)
    let sent = 0
    return honest(params, {
      ...call,
      emit: async (item) => {
        sent += item.bytes.length
        if (sent > 1024 * 1024) throw new SlicenetError('PEER_UNREACHABLE', 'the connection was lost')
        await call.emit(item)
      }
    })
  }
  const whole: Fetch = async (params, call) => {
    offsets.push(params.offset)
    return honest(params, call)
  }
  const own = await fetcher(t, id, [await serve(t, cutting), await serve(t, whole)])
  t.is((await own.fetch()).id, id)
  t.is(offsets[0], 0)
  t.true((offsets[1] ?? 0) > 900_000)
  t.is(offsets.length, 2)
})

test.serial('an altered archive becomes nothing; the same image of an honest peer does', async (t) => {
  const { images, id } = await filled('a')
  const honest = imageHandlers({ images, clock }).fetch
  let asked = 0
  const altering: Fetch = async (params, call) => {
    asked += 1
    return honest(params, {
      ...call,
      emit: async ({ bytes }) => {
        const copy = Buffer.from(bytes)
        copy[0]! ^= 1
        await call.emit({ bytes: copy })
      }
    })
  }
  const liar = await serve(t, altering)
  const own = await fetcher(t, id, [liar])
  await t.throwsAsync(own.fetch(), { code: 'IMAGE_INVALID' })
  t.deepEqual(await own.images.list(), [])
  t.deepEqual(await own.partial(), [])
  await t.throwsAsync(own.fetch({ from: liar.host.principal }), { code: 'IMAGE_INVALID' })
  t.is(asked, 1, 'it is not asked again')
  const other = await serve(t, honest)
  await own.peer.parts.host.addAddresses(other.host.principal, other.host.multiaddrs())
  t.is((await own.fetch({ from: other.host.principal })).id, id)
})

const evil: Readonly<Record<string, readonly TarItem[]>> = {
  'a device': [{ name: 'null', flag: '3' }],
  'a path that leads out': [{ name: '../outside', content: 'x' }],
  'another order than a node makes': [
    { name: 'b', content: 'b' },
    { name: 'a', content: 'a' }
  ]
}
for (const [what, items] of Object.entries(evil)) {
  test.serial(
    `content with ${what} is no image, though it hashes to the id that was asked for`,
    async (t) => {
      const archive = tarOf(items)
      const id = `sha256:${createHash('sha256').update(archive).digest('hex')}`
      const fetch: Fetch = async ({ offset }, { emit }) => {
        await emit({ bytes: archive.subarray(offset) })
        return { bytes: archive.length }
      }
      const own = await fetcher(t, id, [await serve(t, fetch)])
      await t.throwsAsync(own.fetch(), { code: 'IMAGE_INVALID' })
      t.deepEqual(await own.images.list(), [])
      t.deepEqual(await own.left(), [])
      t.deepEqual(await own.partial(), [])
      // The control: an archive as a node makes it, served the same way.
      const good = await filled(`good-${Buffer.from(what).toString('hex')}`, 1)
      const bytes = await gathered(good.images.read(good.id))
      const honest: Fetch = async ({ offset }, { emit }) => {
        for (let at = offset; at < bytes.length; at += 65_536)
          await emit({ bytes: bytes.subarray(at, at + 65_536) })
        return { bytes: bytes.length }
      }
      const again = await fetcher(t, good.id, [await serve(t, honest)], 'again')
      t.is((await again.fetch()).id, good.id)
    }
  )
}

async function gathered(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const all: Buffer[] = []
  for await (const chunk of chunks) all.push(chunk)
  return Buffer.concat(all)
}

test.serial('on the control socket a peer is named as for ping, and progress is told', async (t) => {
  const { images, id } = await filled('a', 1)
  const source = await serve(t, imageHandlers({ images, clock }).fetch)
  const own = await fetcher(t, id, [source])
  const handlers = supplyHandlers(() => own.peer.parts)
  const told: { bytes: number; from: string }[] = []
  const call = {
    principal: undefined,
    signal: new AbortController().signal,
    emit: async (item: { bytes: number; from: string }) => void told.push(item)
  } as unknown as Call<{ bytes: number; from: string }, never>
  const view = await handlers.imageFetch({ image: id, from: 'n0', name: 'it' }, call)
  t.like(view, { id, names: ['it'] })
  t.is(told[0]?.from, source.host.principal)
  await t.throwsAsync(handlers.imageFetch({ image: id, from: 'nobody' }, call), { code: 'NOT_FOUND' })
})

test.serial('a partial archive survives its process and is hashed again', async (t) => {
  const { images, id } = await filled('a')
  const bytes = await gathered(images.read(id))
  const one = await images.partial(id)
  await one.write(bytes.subarray(0, 1_000_000))
  await one.keep()
  const two = await images.partial(id)
  t.is(two.bytes, 1_000_000)
  t.false(two.isWhole())
  await two.write(bytes.subarray(1_000_000))
  t.true(two.isWhole())
  t.true(bytes.equals(await readFile(two.path)))
  await two.empty()
  t.false(two.isWhole())
  await two.write(bytes)
  t.true(two.isWhole())
  await two.remove()
})

test.serial('who has an image is asked of the agents, where no advert is known here', async (t) => {
  const { images, id } = await filled('a', 1)
  const source = await serve(t, imageHandlers({ images, clock }).fetch)
  const agent = await startPeer(t)
  const offer = (fields: Parameters<typeof nodeAdvert>[1]) => ({
    advert: nodeAdvert(source.key, { multiaddrs: source.host.multiaddrs(), ...fields }).bytes,
    available: NO_RESOURCES,
    until: 1,
    reliability: 1000
  })
  let named: Record<string, string> = {}
  const handlers = {
    getAds: async (_params: unknown, { emit }: { emit: (item: unknown) => Promise<void> }) => {
      await emit(offer({ images: named }))
      return { ratings: [] }
    }
  } as unknown as Handlers<typeof agentProtocol.methods>
  await agent.host.serve(agentProtocol, handlers)
  const own = await fetcher(t, id, [])
  const { host, directory } = own.peer.parts
  await host.addAddresses(agent.host.principal, agent.host.multiaddrs())
  const find = async () =>
    imageSources({ host, directory, clock, agents: [agent.host.principal] }, id, new AbortController().signal)
  t.deepEqual(await find(), [], 'the control: it has none')
  named = { it: id }
  t.deepEqual(await find(), [source.host.principal])
  t.is((await own.fetch({ from: source.host.principal })).id, id)
})

import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { systemClock as clock } from '../../src/base/clock.ts'
import { SlicenetError } from '../../src/base/errors.ts'
import { run } from '../../src/base/host-program.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { silentLogger } from '../../src/base/log.ts'
import type { EvictOptions, Image } from '../../src/enforce/image-store.ts'
import { PartialImage, sweepPartialImages } from '../../src/enforce/partial-image.ts'
import { ImageFetching, type FetchOptions, type ImageFetchingInit } from '../../src/node/image-fetching.ts'
import { imageHandlers } from '../../src/node/image-serving.ts'
import { imageProtocol } from '../../src/protocol/image-protocol.ts'
import type { Handlers } from '../../src/protocol/method.ts'
import { localCaller } from '../protocol/local-caller.ts'

type ImageHandlers = Handlers<typeof imageProtocol.methods>
type Fetch = ImageHandlers['fetch']

const CHUNK = 64 * 1024
const archive = randomBytes(12 * CHUNK + 100)
const id = idOf(archive)

function idOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

function* chunksOf(bytes: Buffer, offset = 0): Generator<Buffer> {
  for (let at = offset; at < bytes.length; at += CHUNK) yield bytes.subarray(at, at + CHUNK)
}

/** A peer that sends these bytes, all of them or so many before the connection is lost. */
function sender(bytes: Buffer, cutAfter = Number.POSITIVE_INFINITY): Fetch {
  return async ({ offset }, { emit }) => {
    let sent = 0
    for (const chunk of chunksOf(bytes, offset)) {
      if (sent >= cutAfter) throw new SlicenetError('PEER_UNREACHABLE', 'the connection was lost')
      await emit({ bytes: chunk })
      sent += chunk.length
    }
    return { bytes: bytes.length }
  }
}

const altered = Buffer.from(archive)
altered[CHUNK + 7]! ^= 1

interface Lab {
  readonly fetching: ImageFetching
  /** Who was asked, and from where on. */
  readonly asked: { readonly peer: string; readonly offset: number }[]
  /** Ids of the content that became visible. */
  readonly imported: string[]
  /** How room was to be made, which fails. */
  readonly evicted: EvictOptions[]
  readonly directory: string
  readonly fetch: (options?: FetchOptions) => Promise<Image>
  readonly kept: () => Promise<string[]>
  /** Another process over the same directory. */
  again(peers: Readonly<Record<string, Fetch>>): Promise<Lab>
}

async function lab(
  t: ExecutionContext,
  peers: Readonly<Record<string, Fetch>>,
  init: ImageFetchingInit = {},
  given?: string
): Promise<Lab> {
  const directory = given ?? (await mkdtemp(join(tmpdir(), 'slicenet-fetch-')))
  t.teardown(async () => rm(directory, { recursive: true, force: true }))
  const asked: Lab['asked'] = []
  const imported: string[] = []
  const evicted: Lab['evicted'] = []
  const image = (): Image => ({ id, names: [], bytes: 1, entries: 1, importedAt: 1 })
  const fetching = new ImageFetching(
    {
      clock,
      logger: silentLogger,
      images: {
        has: async () => imported.length > 0,
        find: async () => image(),
        partial: async (wanted) => PartialImage.claim(directory, wanted),
        async import(path) {
          imported.push(idOf(await readFile(path)))
          return image()
        },
        async evict(options) {
          evicted.push(options)
          throw new Error('nothing could be removed')
        }
      },
      callImages: (peer) =>
        localCaller(
          imageProtocol,
          {
            fetch: async (params, call) => {
              asked.push({ peer, offset: params.offset })
              return peers[peer]!(params, call)
            }
          },
          'caller'
        ),
      sources: async () => Object.keys(peers)
    },
    { retryMs: 5, ...init }
  )
  t.teardown(async () => fetching.stop())
  return {
    fetching,
    asked,
    imported,
    evicted,
    directory,
    fetch: async (options) => fetching.fetch(id, options),
    kept: async () => readdir(directory),
    again: async (others) => lab(t, others, init, directory)
  }
}

test('an image comes whole, and nothing is kept beside it', async (t) => {
  const { fetch, asked, imported, kept } = await lab(t, { a: sender(archive) })
  const seen: number[] = []
  await fetch({ onProgress: ({ bytes }) => seen.push(bytes) })
  t.deepEqual(imported, [id])
  t.deepEqual(asked, [{ peer: 'a', offset: 0 }])
  t.is(seen.at(-1), archive.length)
  t.deepEqual(await kept(), [])
  await fetch()
  t.is(asked.length, 1, 'what is there is not fetched again')
})

test('room is made after an image came, where there is a bound, and the image is had though that fails', async (t) => {
  const bounded = await lab(t, { a: sender(archive) }, { fetchedBytesMax: 7 })
  await t.notThrowsAsync(bounded.fetch())
  t.deepEqual(bounded.evicted, [{ bytesMax: 7, keep: id }])
  t.deepEqual(await bounded.kept(), [])
  const free = await lab(t, { a: sender(archive) })
  await free.fetch()
  t.deepEqual(free.evicted, [])
})

test('what was cut off goes on at its offset, with another peer', async (t) => {
  const peers = { a: sender(archive, 5 * CHUNK), b: sender(archive) }
  const { fetch, asked, imported } = await lab(t, peers)
  await fetch()
  t.deepEqual(asked, [
    { peer: 'a', offset: 0 },
    { peer: 'b', offset: 5 * CHUNK }
  ])
  t.deepEqual(imported, [id])
  // The control: where nothing was cut off, all of it comes of one.
  const whole = await lab(t, { b: sender(archive) })
  await whole.fetch()
  t.deepEqual(whole.asked, [{ peer: 'b', offset: 0 }])
})

test('a peer whose connection is lost again and again is gone on with as long as it brings something', async (t) => {
  const { fetch, asked, imported } = await lab(t, { a: sender(archive, 2 * CHUNK) })
  await fetch()
  t.deepEqual(
    asked.map(({ offset }) => offset / CHUNK),
    [0, 2, 4, 6, 8, 10, 12]
  )
  t.deepEqual(imported, [id])
  const stuck = await lab(t, { a: sender(archive, 0) })
  await t.throwsAsync(stuck.fetch(), { code: 'PEER_UNREACHABLE' })
  t.is(stuck.asked.length, 3)
})

test('another process goes on with what was kept, also of one that was killed, but not of one that runs', async (t) => {
  const first = await lab(t, { a: sender(archive, 5 * CHUNK), b: sender(archive, 0) }, { retryMs: 60_000 })
  const leaving = new AbortController()
  const fetched = first.fetch({ signal: leaving.signal })
  while (first.asked.length < 2) await clock.sleep(5)
  // Nobody waits for it any more.
  leaving.abort(new Error('enough'))
  await t.throwsAsync(fetched, { message: 'enough' })
  while ((await first.kept())[0]?.includes('.') !== false) await clock.sleep(5)
  const second = await first.again({ a: sender(archive) })
  await second.fetch()
  t.deepEqual(second.asked, [{ peer: 'a', offset: 5 * CHUNK }])
  t.deepEqual(second.imported, [id])

  const hex = id.slice('sha256:'.length)
  const dead = (await run('sh', ['-c', 'echo $$'])).trim()
  await writeFile(join(second.directory, `${hex}.${dead}.x`), archive.subarray(0, CHUNK))
  const third = await second.again({ a: sender(archive) })
  await third.fetch()
  t.deepEqual(third.asked, [{ peer: 'a', offset: CHUNK }])
  await writeFile(join(second.directory, `${hex}.${process.pid}.x`), archive.subarray(0, CHUNK))
  const fourth = await second.again({ a: sender(archive) })
  await fourth.fetch()
  t.deepEqual(fourth.asked, [{ peer: 'a', offset: 0 }])
})

test('what does not hash to the id is thrown away, and its sender is not asked again', async (t) => {
  const { fetch, fetching, asked, imported, kept } = await lab(t, { a: sender(altered), b: sender(archive) })
  await fetch()
  t.deepEqual(asked, [
    { peer: 'a', offset: 0 },
    { peer: 'b', offset: 0 }
  ])
  t.deepEqual(imported, [id])
  imported.length = 0
  await fetch()
  t.deepEqual(asked.slice(2), [{ peer: 'b', offset: 0 }])
  imported.length = 0
  await t.throwsAsync(fetching.fetch(id, { from: 'a' }), { code: 'IMAGE_INVALID' })
  t.is(asked.length, 3)
  t.deepEqual(await kept(), [])
  // The control: the same peer with the bytes of the image.
  const honest = await lab(t, { a: sender(archive) })
  await honest.fetch()
  t.deepEqual(honest.imported, [id])
})

test('nothing becomes visible where only something else is sent, or too little, or too much', async (t) => {
  const lies = [altered, archive.subarray(0, 3 * CHUNK), Buffer.concat([archive, Buffer.from('more')])]
  for (const lie of lies) {
    const { fetch, imported, kept } = await lab(t, { a: sender(lie) })
    await t.throwsAsync(fetch(), { code: 'IMAGE_INVALID' })
    t.deepEqual(imported, [])
    t.deepEqual(await kept(), [])
  }
})

test('where bytes of two make no image, the honest one is not blamed', async (t) => {
  const lateAltered = Buffer.from(archive)
  lateAltered[11 * CHUNK]! ^= 1
  const cases = [
    { peers: { liar: sender(altered, 5 * CHUNK), honest: sender(archive) }, name: 'the liar first' },
    { peers: { honest: sender(archive, 5 * CHUNK), liar: sender(lateAltered) }, name: 'the liar last' }
  ]
  for (const { peers, name } of cases) {
    const { fetch, asked, imported } = await lab(t, peers)
    await fetch()
    t.deepEqual(imported, [id], name)
    const before = asked.length
    imported.length = 0
    await fetch()
    t.true(
      asked.slice(before).some(({ peer }) => peer === 'honest'),
      name
    )
  }
})

test('a bound on bytes holds while they come', async (t) => {
  const endless: Fetch = async (_params, { emit }) => {
    for (;;) await emit({ bytes: archive.subarray(0, CHUNK) })
  }
  let largest = 0
  const bytesMax = 8 * CHUNK
  const { fetch, imported, directory } = await lab(t, { a: endless }, { bytesMax })
  const watch = async (): Promise<void> => {
    for (const name of await readdir(directory)) {
      largest = Math.max(largest, (await stat(join(directory, name)).catch(() => undefined))?.size ?? 0)
    }
  }
  let watching = Promise.resolve()
  const onProgress = (): void => void (watching = watching.then(watch))
  await t.throwsAsync(fetch({ onProgress }), { code: 'TOO_LARGE' })
  await watching
  t.true(largest > 0 && largest <= bytesMax)
  t.deepEqual(imported, [])
  // The control: an image of just the bound comes.
  const fits = await lab(t, { a: sender(archive) }, { bytesMax: archive.length })
  await fits.fetch()
  const tight = await lab(t, { a: sender(archive) }, { bytesMax: archive.length - 1 })
  await t.throwsAsync(tight.fetch(), { code: 'TOO_LARGE' })
})

test('a peer that brings next to nothing is left for another', async (t) => {
  const silent: Fetch = async (_params, { emit, signal }) => {
    await emit({ bytes: archive.subarray(0, CHUNK) })
    await clock.sleep(600_000, { signal })
    return { bytes: archive.length }
  }
  const { fetch, asked, imported } = await lab(t, { a: silent, b: sender(archive) }, { stallMs: 100 })
  await fetch()
  t.deepEqual(asked, [
    { peer: 'a', offset: 0 },
    { peer: 'b', offset: CHUNK }
  ])
  t.deepEqual(imported, [id])
  const patient = await lab(t, { a: silent }, { stallMs: 600_000 })
  const fetched = patient.fetch()
  const first = await Promise.race([fetched, clock.sleep(500)])
  t.is(first, undefined, 'the control: with more patience it is waited for')
  await patient.fetching.stop()
  await t.throwsAsync(fetched, { code: 'INTERRUPTED' })
})

test('fetches of one image join, and it goes on as long as one waits', async (t) => {
  const gate = Promise.withResolvers<void>()
  const gated: Fetch = async (params, call) => {
    await Promise.race([gate.promise, clock.sleep(600_000, { signal: call.signal })])
    return sender(archive)(params, call)
  }
  const { fetch, asked, imported } = await lab(t, { a: gated })
  const leaving = new AbortController()
  const [first, second, third] = [fetch({ signal: leaving.signal }), fetch(), fetch()]
  while (asked.length === 0) await clock.sleep(5)
  leaving.abort(new Error('gone'))
  await t.throwsAsync(first, { message: 'gone' })
  gate.resolve()
  await Promise.all([second, third])
  t.is(asked.length, 1)
  t.is(imported.length, 1)
})

test('when nobody waits the peer is let go, unless it is for the background', async (t) => {
  for (const background of [false, true]) {
    let aborted = false
    const hanging: Fetch = async (_params, { signal }) => {
      signal.addEventListener('abort', () => (aborted = true))
      await clock.sleep(600_000, { signal })
      return { bytes: 0 }
    }
    const { fetch, fetching, asked } = await lab(t, { a: hanging })
    const leaving = new AbortController()
    const fetched = fetch({ signal: leaving.signal, background })
    while (asked.length === 0) await clock.sleep(5)
    leaving.abort(new Error('gone'))
    await t.throwsAsync(fetched, { message: 'gone' })
    await clock.sleep(100)
    t.is(aborted, !background)
    await fetching.stop()
  }
})

test('an image that nobody has is missing, and one that is busy is asked again', async (t) => {
  await t.throwsAsync((await lab(t, {})).fetch(), { code: 'IMAGE_MISSING' })
  const lacking: Fetch = async () => {
    throw new SlicenetError('IMAGE_MISSING', 'not here')
  }
  const without = await lab(t, { a: lacking })
  await t.throwsAsync(without.fetch(), { code: 'IMAGE_MISSING' })
  t.is(without.asked.length, 1)
  let calls = 0
  const busy: Fetch = async (params, call) => {
    calls += 1
    if (calls === 1) throw new SlicenetError('BUSY', 'later')
    return sender(archive)(params, call)
  }
  const { fetch, imported } = await lab(t, { a: busy })
  await fetch()
  t.deepEqual(imported, [id])
})

test('what a peer says of itself ends nothing here', async (t) => {
  for (const code of ['STORE_FAILED', 'TOO_LARGE', 'INTERRUPTED', 'INTERNAL'] as const) {
    const talking: Fetch = async () => {
      throw new SlicenetError(code, 'so it says')
    }
    const { fetch, imported } = await lab(t, { a: talking, b: sender(archive) })
    await fetch()
    t.deepEqual(imported, [id], code)
  }
})

test('peers that send a little and leave do not keep it up forever', async (t) => {
  const teasing: Fetch = async ({ offset }, { emit }) => {
    await emit({ bytes: Buffer.from([offset % 251]) })
    throw new SlicenetError('PEER_UNREACHABLE', 'the connection was lost')
  }
  const { fetch, asked, imported } = await lab(t, { a: teasing }, { retryMs: 0 })
  await t.throwsAsync(fetch(), { code: 'PEER_UNREACHABLE' })
  t.is(asked.length, 256)
  t.deepEqual(imported, [])
})

test('what was kept is bounded in number and in age', async (t) => {
  const { directory } = await lab(t, {})
  await mkdir(directory, { recursive: true })
  for (let index = 0; index < LIMITS.partialImagesMax + 3; index++) {
    await writeFile(join(directory, idOf(Buffer.from([index])).slice(7)), 'x')
  }
  const partial = await PartialImage.claim(directory, id)
  t.is((await readdir(directory)).length, LIMITS.partialImagesMax + 1)
  await sweepPartialImages(directory, Date.now() - 60_000)
  t.is((await readdir(directory)).length, LIMITS.partialImagesMax + 1, 'the control: none is old')
  await sweepPartialImages(directory, Date.now() + 60_000)
  t.is((await readdir(directory)).length, 1, 'what is in work stays')
  await partial.remove()
})

function serving(read: () => AsyncGenerator<Buffer>): ImageHandlers {
  return imageHandlers({ clock, images: { has: async (image) => image === id, read } })
}

test('a node serves by exact id, from an offset on', async (t) => {
  const handlers = serving(async function* () {
    // Pieces of a size of their own.
    for (let at = 0; at < archive.length; at += 100_000) yield archive.subarray(at, at + 100_000)
  })
  const call = localCaller(imageProtocol, handlers, 'caller')
  for (const offset of [0, 1, CHUNK, 150_000, archive.length - 1, archive.length, archive.length + 9]) {
    const got: Uint8Array[] = []
    const { bytes } = await call(
      'fetch',
      { image: id, offset },
      { onItem: (item) => void got.push(item.bytes) }
    )
    t.is(bytes, archive.length)
    t.true(Buffer.concat(got).equals(archive.subarray(offset)))
  }
  const missing = { code: 'IMAGE_MISSING' }
  await t.throwsAsync(call('fetch', { image: idOf(Buffer.from('x')), offset: 0 }), missing)
  for (const image of [id.slice(0, 20), 'busybox', `${id}/../x`]) {
    await t.throwsAsync(call('fetch', { image, offset: 0 }), { code: 'PROTOCOL_ERROR' }, image)
  }
})

test('a node serves so many at once and so often, and counts nobody who is gone', async (t) => {
  const gate = Promise.withResolvers<void>()
  const handlers = serving(async function* () {
    await gate.promise
    yield archive
  })
  const fetch = async (caller: string) =>
    localCaller(imageProtocol, handlers, caller)('fetch', { image: id, offset: 0 })
  const busy = { code: 'BUSY' }
  const served = [fetch('a'), fetch('a')]
  await clock.sleep(20)
  await t.throwsAsync(fetch('a'), busy, 'a third of one caller')
  served.push(fetch('b'), fetch('c'))
  await clock.sleep(20)
  await t.throwsAsync(fetch('d'), busy, 'a fifth in all')
  gate.resolve()
  await Promise.all(served)
  await t.notThrowsAsync(fetch('d'), 'the control: places are free again')
  const outcomes: string[] = []
  for (let index = 0; index < LIMITS.imageServesPerCallerBurst; index++) {
    outcomes.push(
      await fetch('e').then(
        () => 'served',
        (error: SlicenetError) => error.code
      )
    )
  }
  t.true(outcomes.every((outcome) => outcome === 'served'))
  await t.throwsAsync(fetch('e'), busy, 'too often')
  await t.notThrowsAsync(fetch('f'))
})

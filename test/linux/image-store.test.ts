import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { systemClock as clock } from '../../src/base/clock.ts'
import type { SlicenetError } from '../../src/base/errors.ts'
import { run } from '../../src/base/host-program.ts'
import { buildImage } from '../../src/enforce/image-build.ts'
import { ImageStore } from '../../src/enforce/image-store.ts'
import { file, link, pax, tarOf } from './fixtures/oci-layout.ts'
import { ownDirectory } from './own-names.ts'

let scratch: string
let images: ImageStore

test.beforeEach(async () => {
  scratch = await ownDirectory('images')
  images = new ImageStore({ clock }, { directory: join(scratch, 'store') })
  await images.start()
})

test.afterEach.always(async () => {
  await rm(scratch, { recursive: true, force: true })
})

/** A root directory with one file, its times fixed. */
async function makeRoot(name: string, content = 'hello'): Promise<string> {
  const root = join(scratch, name)
  await mkdir(join(root, 'bin'), { recursive: true })
  await writeFile(join(root, 'bin/hello'), content)
  await symlink('/bin/hello', join(root, 'link'))
  await run('find', [root, '-exec', 'touch', '--no-dereference', '--date=@1700000000', '{}', '+'])
  return root
}

/** An archive made by an attacker: names are kept as they are given. */
async function pack(root: string, ...args: string[]): Promise<string> {
  const archive = join(scratch, 'archive.tar')
  await run('tar', ['--create', '--absolute-names', '--directory', root, '--file', archive, ...args])
  return archive
}

test.serial('the same files give the same id as directory, archive and compressed archive', async (t) => {
  const root = await makeRoot('root')
  const first = await images.import(root, { name: 'hello' })
  const archive = await pack(root, 'link', 'bin', '.')
  await run('gzip', ['--keep', archive])
  t.is((await images.import(archive)).id, first.id)
  t.is((await images.import(`${archive}.gz`, { name: 'packed' })).id, first.id)
  t.deepEqual((await images.find('packed')).names, ['hello', 'packed'])
  t.is((await images.list()).length, 1)
  t.not((await images.import(await makeRoot('other', 'other'))).id, first.id)
})

test.serial('the id is the hash of the archive that the store gives out', async (t) => {
  const { id } = await images.import(await makeRoot('root'))
  const hash = createHash('sha256')
  for await (const chunk of images.read(id)) hash.update(chunk)
  t.is(`sha256:${hash.digest('hex')}`, id)
  t.true(await images.verify(id))
  await writeFile(join(await images.open(id), 'bin/hello'), 'tampered')
  t.false(await images.verify(id))
})

test.serial(
  'a name points to what was imported last, and images are found by the start of their id',
  async (t) => {
    const one = await images.import(await makeRoot('one', '1'), { name: 'latest' })
    const two = await images.import(await makeRoot('two', '2'), { name: 'latest' })
    t.is((await images.find('latest')).id, two.id)
    t.deepEqual((await images.find(one.id)).names, [])
    t.is((await images.find(one.id.slice(0, 19))).id, one.id)
    await images.remove(two.id)
    await images.remove(two.id)
    for (const missing of ['latest', two.id, 'abc', '../store', 'sha256:../../etc']) {
      await t.throwsAsync<SlicenetError>(images.find(missing), { code: 'IMAGE_MISSING' }, missing)
    }
    await t.throwsAsync<SlicenetError>(images.open(two.id), { code: 'IMAGE_MISSING' })
    await t.throwsAsync<SlicenetError>(images.open('sha256:../../etc'), { code: 'IMAGE_MISSING' })
  }
)

test.serial(
  'archives that reach out of the directory or hold devices are refused, and leave nothing',
  async (t) => {
    const root = await makeRoot('root')
    const invalid = { code: 'IMAGE_INVALID' }
    await run('mknod', [join(root, 'null'), 'c', '1', '3'])
    await t.throwsAsync<SlicenetError>(images.import(root), invalid)
    await rm(join(root, 'null'))
    await writeFile(join(scratch, 'outside'), 'x')
    await t.throwsAsync<SlicenetError>(images.import(await pack(root, '../outside')), invalid)
    await t.throwsAsync<SlicenetError>(
      images.import(await pack(root, '--transform', 's|^bin/hello|bin/../../up|', 'bin')),
      invalid
    )
    await t.throwsAsync<SlicenetError>(images.import(await pack(root, '--owner=:70000', 'bin')), invalid)
    await writeFile(join(root, 'bin/new\nline'), 'x')
    await t.notThrowsAsync(images.import(root))
    await writeFile(join(scratch, 'text'), 'this is no archive')
    await t.throwsAsync<SlicenetError>(images.import(join(scratch, 'text')), invalid)
    await t.throwsAsync<SlicenetError>(images.import('/dev/null'), invalid)
    await t.throwsAsync<SlicenetError>(images.import(join(scratch, 'nothing')), { code: 'NOT_FOUND' })
    t.is((await images.list()).length, 1)
    t.is((await run('ls', [join(scratch, 'store')])).match(/import-/), null)
  }
)

test.serial(
  'a file behind a link that the archive itself lays out does not leave the directory',
  async (t) => {
    const outside = join(scratch, 'outside')
    await mkdir(outside)
    const root = join(scratch, 'root')
    await mkdir(root)
    await symlink(outside, join(root, 'way'))
    const archive = await pack(root, 'way')
    const second = join(scratch, 'second')
    await mkdir(join(second, 'way'), { recursive: true })
    await writeFile(join(second, 'way/file'), 'x')
    await run('tar', ['--append', '--directory', second, '--file', archive, 'way/file'])
    await images.import(archive).catch(() => {})
    t.is(await run('ls', [outside]), '')
  }
)

test.serial(
  'an archive without entries for its directories gives the same id whenever it comes in',
  async (t) => {
    const root = await makeRoot('root')
    await mkdir(join(root, 'bin/inner'))
    await writeFile(join(root, 'bin/inner/file'), 'x')
    await mkdir(join(root, 'b\u00e4r "x -> y\nz'))
    await writeFile(join(root, 'b\u00e4r "x -> y\nz/file'), 'x')
    const files = ['link', 'bin/inner/file', 'b\u00e4r "x -> y\nz/file']
    const archive = await pack(root, ...files)
    const { id } = await images.import(archive)
    const place = await images.open(id)
    // What is compared is a time in whole seconds.
    const { mtime } = await stat(join(root, 'bin/inner/file'))
    while (Math.floor(Date.now() / 1000) <= Math.floor(mtime.getTime() / 1000) + 1) await delay(50)
    await images.remove(id)
    t.is((await images.import(archive)).id, id)
    for (const directory of ['.', 'bin', 'bin/inner', 'b\u00e4r "x -> y\nz']) {
      t.is((await stat(join(place, directory))).mtimeMs, 0, directory)
    }
    // Those that it has entries for keep their own.
    const whole = await images.open((await images.import(await pack(root, '.'))).id)
    t.true((await stat(join(whole, 'bin/inner'))).mtimeMs > 0)
  }
)

test.serial('directories that an archive only implies count as files do', async (t) => {
  const archive = join(scratch, 'deep.tar')
  const deep = (count: number): Buffer =>
    tarOf(
      Array.from({ length: count }, (_, index) => [
        pax({ path: `${index}/${'d/'.repeat(2000)}f` }),
        file('f')
      ]).flat()
    )
  await writeFile(archive, deep(260))
  await t.throwsAsync<SlicenetError>(images.import(archive), { code: 'TOO_LARGE' })
  // Deeper than a path may be long, and removed again all the same.
  await writeFile(archive, deep(2))
  const { id } = await images.import(archive)
  const control = rm(await images.open(id), { recursive: true })
  await t.throwsAsync(control, { code: 'ENAMETOOLONG' })
  await images.remove(id)
  t.deepEqual((await readdir(join(scratch, 'store'))).sort(), ['names'])
})

test.serial('a link whose name holds an arrow is judged by all of its name', async (t) => {
  const archive = join(scratch, 'arrow.tar')
  const leading = link('x -> ../../y', 'z')
  await writeFile(archive, tarOf([leading]))
  const out = { code: 'IMAGE_INVALID', message: /a path with `\.\.`/ }
  await t.throwsAsync<SlicenetError>(images.import(archive), out)
  // The control: where it leads to is looked at inside a vserver alone.
  await writeFile(archive, tarOf([link('x -> y', '../../y -> z')]))
  const { id } = await images.import(archive)
  t.is(await readlink(join(await images.open(id), 'x -> y')), '../../y -> z')
})

test.serial('absolute names land inside', async (t) => {
  const root = await makeRoot('root')
  const { id } = await images.import(await pack(root, join(root, 'bin/hello')))
  t.true((await stat(join(await images.open(id), root, 'bin/hello'))).isFile())
})

test.serial(
  'an archive that unpacks to more than the limit is refused before anything is written',
  async (t) => {
    const root = join(scratch, 'root')
    await mkdir(root)
    await run('truncate', ['--size=9G', join(root, 'huge')])
    const archive = join(scratch, 'huge.tar')
    await run('tar', ['--create', '--sparse', '--directory', root, '--file', archive, '.'])
    t.true((await stat(archive)).size < 1024 * 1024)
    await t.throwsAsync<SlicenetError>(images.import(archive), { code: 'TOO_LARGE' })
  }
)

/** What a node of the machine has vservers of. */
async function recordsOf(...used: readonly string[]): Promise<string> {
  const directory = await mkdtemp(join(scratch, 'records-'))
  for (const [index, image] of used.entries()) {
    const spec = { id: `v${index}`, image }
    await writeFile(join(directory, `v${index}.json`), JSON.stringify({ spec, uidBase: 1, phase: 'making' }))
  }
  return directory
}

test.serial(
  'an image that a vserver of any node has is not removed, and one of a node that is gone is',
  async (t) => {
    const one = await images.import(await makeRoot('one', '1'), { name: 'one' })
    const two = await images.import(await makeRoot('two', '2'), { name: 'two' })
    const [first, second] = [await recordsOf(one.id, one.id), await recordsOf(two.id)]
    // The second node finds the store as the first left it.
    await images.users.register(first)
    const shared = new ImageStore({ clock }, { directory: join(scratch, 'store') })
    await shared.users.register(second)
    await shared.users.register(second)
    const used = { code: 'IN_USE', message: /is that of vserver v0 and 1 more/ }
    await t.throwsAsync<SlicenetError>(shared.remove(one.id), used)
    await t.throwsAsync<SlicenetError>(images.remove(two.id), { code: 'IN_USE' })
    t.true(await images.verify(one.id))
    t.deepEqual((await images.find('one')).names, ['one'])
    await rm(second, { recursive: true })
    await images.remove(two.id)
    t.is((await readdir(join(scratch, 'store/users'))).length, 1)
    await t.throwsAsync<SlicenetError>(images.find('two'), { code: 'IMAGE_MISSING' })
    await rm(join(first, 'v0.json'))
    await t.throwsAsync<SlicenetError>(images.remove(one.id), { code: 'IN_USE' })
    await rm(join(first, 'v1.json'))
    await t.notThrowsAsync(images.remove(one.id))
    t.deepEqual(await images.list(), [])
  }
)

test.serial('an image that a vserver begins with while it is removed comes back', async (t) => {
  const { id } = await images.import(await makeRoot('root'), { name: 'wanted' })
  const looks: boolean[] = []
  images.users.find = async () => {
    looks.push(await images.has(id))
    return looks.length === 1 ? new Map() : new Map([[id, ['late']]])
  }
  await t.throwsAsync<SlicenetError>(images.remove(id), { code: 'IN_USE', message: /vserver late/ })
  t.deepEqual(looks, [true, false], 'looked once more when nobody could open it')
  t.true(await images.verify(id))
  t.deepEqual((await images.find('wanted')).names, ['wanted'])
  t.deepEqual(
    (await readdir(join(scratch, 'store'))).filter((name) => name.startsWith('import-')),
    []
  )
})

test.serial(
  'fetched images beyond a bound go, the longest unused first, and none that is named, used or kept',
  async (t) => {
    let now = 1_700_000_000_000
    const timed = { ...clock, now: () => (now += 1000) }
    const store = new ImageStore({ clock: timed }, { directory: join(scratch, 'store') })
    const fetched: string[] = []
    for (const content of ['a', 'b', 'c', 'd', 'e', 'f']) {
      const root = await makeRoot(content, content.repeat(1000))
      fetched.push((await store.import(root, { isFetched: true })).id)
      await store.open(fetched.at(-1)!)
    }
    const [a, b, c, d, e, f] = fetched as [string, string, string, string, string, string]
    const own = (await store.import(await makeRoot('own', 'o'.repeat(9000)))).id
    await store.name(b, 'wanted')
    await store.users.register(await recordsOf(c))
    // The oldest is used once more.
    await store.open(a)
    // Four thousand bytes of images that may go, and those of one that may not.
    t.deepEqual(await store.evict({ bytesMax: 5000, keep: f }), [])
    t.deepEqual(await store.evict({ bytesMax: 3000, keep: f }), [d, e])
    t.deepEqual(await store.evict({ bytesMax: 0, keep: f }), [a])
    t.deepEqual((await store.list()).map(({ id }) => id).sort(), [b, c, f, own].sort())
    for (const id of [b, c, f, own]) t.true(await store.verify(id))
  }
)

test.serial('an image that the disk has no room for is refused, and leaves nothing', async (t) => {
  const root = await makeRoot('root')
  await writeFile(join(root, 'large'), randomBytes(3 * 1024 * 1024))
  const archive = await pack(root, '.')
  const full = { code: 'STORE_FAILED', message: /no room on the disk/ }
  const directory = join(scratch, 'small')
  await mkdir(directory)
  await run('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', directory])
  try {
    const small = new ImageStore({ clock }, { directory })
    await small.start()
    // From a directory it is packed first, and from an archive only unpacked.
    await t.throwsAsync<SlicenetError>(small.import(root), full)
    await writeFile(join(directory, 'other'), new Uint8Array(2 * 1024 * 1024))
    await t.throwsAsync<SlicenetError>(small.import(archive), full)
    t.deepEqual((await readdir(directory)).sort(), ['names', 'other'])
    await rm(join(directory, 'other'))
    await t.notThrowsAsync(small.import(archive))
  } finally {
    await run('umount', [directory])
  }
})

test.serial('two imports of the same content at the same time make one image', async (t) => {
  const root = await makeRoot('root')
  const other = new ImageStore({ clock }, { directory: join(scratch, 'store') })
  const made = await Promise.all([images.import(root), other.import(root), images.import(root)])
  t.is(new Set(made.map(({ id }) => id)).size, 1)
  t.is((await images.list()).length, 1)
})

test.serial('only root reads a store, whose programs may be set-user-id', async (t) => {
  t.is((await stat(join(scratch, 'store'))).mode & 0o777, 0o700)
})

test.serial('busybox comes out the same each time it is built', async (t) => {
  const messages: string[] = []
  const first = await buildImage('busybox', { images }, { onProgress: (message) => messages.push(message) })
  t.is((await buildImage('busybox', { images })).id, first.id)
  t.deepEqual(first.names, ['busybox'])
  t.true(messages.length >= 2)
})

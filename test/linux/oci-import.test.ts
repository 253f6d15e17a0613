import {
  appendFile,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rm,
  symlink,
  truncate,
  writeFile
} from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { systemClock as clock } from '../../src/base/clock.ts'
import type { SlicenetError } from '../../src/base/errors.ts'
import { run } from '../../src/base/host-program.ts'
import { ImageStore } from '../../src/enforce/image-store.ts'
import { LayerTree } from '../../src/enforce/layer-tree.ts'
import { flattenLayout } from '../../src/enforce/oci-layout.ts'
import {
  digestOf,
  dir,
  file,
  hard,
  link,
  makeLayout,
  pax,
  tarOf,
  type Compression,
  type Layout,
  type LayoutImage,
  type TarItem
} from './fixtures/oci-layout.ts'
import { ownDirectory } from './own-names.ts'

let scratch: string
let images: ImageStore
const INVALID = { code: 'IMAGE_INVALID' }
const architecture = 'x64'

test.beforeEach(async () => {
  scratch = await ownDirectory('import')
  images = new ImageStore({ clock }, { directory: join(scratch, 'store') })
  await images.start()
})

test.afterEach.always(async () => {
  await rm(scratch, { recursive: true, force: true })
})

let layouts = 0

async function layoutOf(
  image: Omit<LayoutImage, 'layers'>,
  ...layers: readonly (readonly TarItem[])[]
): Promise<Layout> {
  return makeLayout(join(scratch, `layout-${layouts++}`), [{ ...image, layers: layers.map(tarOf) }])
}

async function importLayers(...layers: readonly (readonly TarItem[])[]): Promise<string> {
  const { directory } = await layoutOf({}, ...layers)
  return (await images.import(directory, { architecture })).id
}

/** What is in an image: names with their kind, and the content of files. */
async function listing(id: string): Promise<Record<string, string>> {
  const root = await images.open(id)
  const lines = await run('find', [root, '-mindepth', '1', '-printf', '%P\t%y\t%l\n'])
  const entries = lines
    .trim()
    .split('\n')
    .map(async (line) => {
      const [path = '', kind = '', target = ''] = line.split('\t')
      if (kind === 'f') return [path, await readFile(join(root, path), 'utf8')]
      return [path, kind === 'l' ? `-> ${target}` : '/']
    })
  return Object.fromEntries(await Promise.all(entries)) as Record<string, string>
}

/** That nothing of a failed import is left. */
async function leftovers(): Promise<string[]> {
  return (await readdir(join(scratch, 'store'))).filter((name) => name.startsWith('import-'))
}

/** That an import is refused for what it says, and nothing of it is left. */
async function refusedWhole(t: ExecutionContext, imported: Promise<unknown>, message: RegExp): Promise<void> {
  await t.throwsAsync<SlicenetError>(imported, { ...INVALID, message })
  t.deepEqual(await images.list(), [])
  t.deepEqual(await leftovers(), [])
}

const LOWER = [
  dir('etc'),
  file('etc/keep'),
  file('etc/gone'),
  dir('etc/old'),
  file('etc/old/inner'),
  dir('usr'),
  dir('usr/lib'),
  link('lib', 'usr/lib'),
  link('opt', 'etc'),
  dir('data'),
  file('data/hidden'),
  file('swap')
]
const UPPER = [
  // Said after the file beside it, and meant of the lower layer all the same.
  file('data/new'),
  file('data/.wh..wh..opq', ''),
  file('etc/.wh.gone', ''),
  file('etc/.wh.old', ''),
  file('etc/.wh..wh.plnk', ''),
  file('lib/through'),
  dir('opt'),
  file('opt/own'),
  dir('swap'),
  file('swap/inner'),
  hard('usr/keep-too', 'etc/keep'),
  { name: 'usr/su', content: 'su', mode: 0o4755, uid: 7 }
]

test.serial('layers are applied in order, with what they hide, cover and replace', async (t) => {
  const id = await importLayers(LOWER, UPPER)
  t.deepEqual(await listing(id), {
    etc: '/',
    'etc/keep': 'etc/keep',
    usr: '/',
    'usr/lib': '/',
    'usr/lib/through': 'lib/through',
    'usr/keep-too': 'etc/keep',
    'usr/su': 'su',
    lib: '-> usr/lib',
    opt: '/',
    'opt/own': 'opt/own',
    data: '/',
    'data/new': 'data/new',
    swap: '/',
    'swap/inner': 'swap/inner'
  })
  const root = await images.open(id)
  t.is(await run('stat', ['--format=%a %u', join(root, 'usr/su')]), '4755 7\n')
  t.is(
    await run('stat', ['--format=%i', join(root, 'usr/keep-too')]),
    await run('stat', ['--format=%i', join(root, 'etc/keep')]),
    'one file with two names'
  )
  // The control: the lower layer alone has what the upper one hides.
  const below = await listing(await importLayers(LOWER))
  t.like(below, { 'etc/gone': 'etc/gone', 'etc/old/inner': 'etc/old/inner', 'data/hidden': 'data/hidden' })
})

test.serial(
  'the same content has one id: by any compression, as directory or archive, and as a plain root',
  async (t) => {
    const plain = join(scratch, 'plain.tar')
    await writeFile(plain, tarOf([dir('.'), ...LOWER]))
    const { id } = await images.import(plain)
    const top = { ...dir('.'), name: './' }
    for (const compression of ['none', 'gzip', 'zstd'] satisfies Compression[]) {
      const { directory } = await layoutOf({ compression }, [top, ...LOWER.slice(0, 5)], LOWER.slice(5))
      t.is((await images.import(directory, { architecture })).id, id, compression)
      const archive = `${directory}.tar`
      await run('tar', ['--create', '--directory', directory, '--file', archive, '.'])
      t.is((await images.import(archive, { architecture })).id, id, `${compression}, as an archive`)
      await run('gzip', [archive])
      t.is((await images.import(`${archive}.gz`, { architecture })).id, id, `${compression}, in gzip`)
    }
    const other = await importLayers([top, ...LOWER, file('more')])
    t.not(other, id, 'other content has another')
    t.true(await images.verify(id))
    t.deepEqual(await leftovers(), [])
  }
)

test.serial('long names, and names that are no UTF-8, stay as they are', async (t) => {
  const deep = `${'d'.repeat(120)}/${'f'.repeat(200)}`
  const id = await importLayers([
    pax({ path: deep, mtime: '1700000000.5' }),
    file('short', 'deep'),
    pax({ linkpath: deep }),
    link('to', 'x'),
    { name: '././@LongLink', flag: 'L', content: `${'g'.repeat(150)}\0` },
    file('short', 'gnu')
  ])
  t.like(await listing(id), { [deep]: 'deep', to: `-> ${deep}`, ['g'.repeat(150)]: 'gnu' })
  t.true(await images.verify(id))
  const odd = await importLayers([file('caf\xe9')])
  t.deepEqual(await readdir(await images.open(odd), { encoding: 'buffer' }), [
    Buffer.from('caf\xe9', 'latin1')
  ])
})

test.serial(
  'of several images the one for this machine is taken, through indexes and past attestations',
  async (t) => {
    const layers = [tarOf([file('amd64')])]
    const arm = { architecture: 'arm64', layers: [tarOf([file('arm64')])] }
    for (const nested of [false, true]) {
      const directory = join(scratch, `many-${nested}`)
      await makeLayout(directory, [{ layers }, arm], { nested })
      const ours = await images.import(directory, { architecture: 'x64' })
      const theirs = await images.import(directory, { architecture: 'arm64' })
      t.true('amd64' in (await listing(ours.id)))
      t.true('arm64' in (await listing(theirs.id)))
      const none = { ...INVALID, message: /no image for linux\/riscv64, only for linux\/amd64, linux\/arm64/ }
      await t.throwsAsync<SlicenetError>(images.import(directory, { architecture: 'riscv64' }), none)
    }
    const unsaid = join(scratch, 'unsaid')
    await makeLayout(unsaid, [
      { layers, platform: null },
      { ...arm, platform: null }
    ])
    t.true('arm64' in (await listing((await images.import(unsaid, { architecture: 'arm64' })).id)))
  }
)

test.serial(
  'two images for this machine are ambiguous, and one that is not what the index says is none',
  async (t) => {
    const two = join(scratch, 'two')
    await makeLayout(two, [{ layers: [tarOf([file('a')])] }, { layers: [tarOf([file('b')])] }])
    await t.throwsAsync<SlicenetError>(images.import(two, { architecture }), {
      ...INVALID,
      message: /has 2 images/
    })
    // The same image under two names is one.
    const twice = join(scratch, 'twice')
    const image = { layers: [tarOf([file('a')])] }
    await makeLayout(twice, [image, image])
    await t.notThrowsAsync(images.import(twice, { architecture }))
    const lying = join(scratch, 'lying')
    await makeLayout(lying, [
      { ...image, architecture: 'arm64', platform: { os: 'linux', architecture: 'amd64' } }
    ])
    await t.throwsAsync<SlicenetError>(images.import(lying, { architecture }), {
      ...INVALID,
      message: /only for linux\/arm64/
    })
  }
)

const blobFaults: Readonly<
  Record<string, readonly [damage: (layer: string) => Promise<void>, says: RegExp]>
> = {
  altered: [
    async (layer) => {
      const bytes = await readFile(layer)
      bytes[bytes.length - 5]! ^= 1
      await writeFile(layer, bytes)
    },
    /was altered/
  ],
  truncated: [async (layer) => truncate(layer, 40), /is cut off: 40 of/],
  lengthened: [async (layer) => appendFile(layer, 'x'), /is longer/],
  missing: [async (layer) => rm(layer), /lacks blobs\/sha256/],
  'replaced by a pipe': [
    async (layer) => {
      await rm(layer)
      await run('mkfifo', [layer])
    },
    /is no file/
  ]
}
for (const [name, [damage, message]] of Object.entries(blobFaults)) {
  test.serial(`a layout with a layer ${name} is refused, and leaves nothing`, async (t) => {
    for (const compression of ['none', 'gzip', 'zstd'] satisfies Compression[]) {
      const { directory, layers } = await layoutOf({ compression }, LOWER, [file('upper')])
      await damage(layers[1] ?? '')
      await refusedWhole(t, images.import(directory, { architecture }), message)
    }
    // The control: nothing else is wrong with it.
    await t.notThrowsAsync(importLayers(LOWER, [file('upper')]))
  })
}

test.serial(
  'layers that are not what the configuration says are refused, though their own digests hold',
  async (t) => {
    const layer = [file('a')]
    const refused = async (image: Omit<LayoutImage, 'layers'>, message: RegExp): Promise<void> => {
      const { directory } = await layoutOf(image, layer)
      await t.throwsAsync<SlicenetError>(images.import(directory, { architecture }), { ...INVALID, message })
    }
    await refused({ diffIds: [digestOf(Buffer.from('another'))] }, /does not hold what the configuration/)
    await refused({ diffIds: [] }, /name different layers/)
    await refused({ layerType: 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted' }, /not known/)
    const { directory } = await layoutOf({ diffIds: [digestOf(tarOf(layer))] }, layer)
    await t.notThrowsAsync(images.import(directory, { architecture }), 'the control')
    t.deepEqual(await leftovers(), [])
  }
)

test.serial(
  'a layer of zstd in several frames, of which only the first would be read, is refused with what to do',
  async (t) => {
    const layer = tarOf([file('Peter'), file('a')])
    const [first, rest] = [layer.subarray(0, 512), layer.subarray(512)].map((part) => zstdCompressSync(part))
    const skipped = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7])
    const imported = async (blob: Buffer) => {
      const image = { layers: [blob], compression: 'none' as const, diffIds: [digestOf(layer)] }
      const { directory } = await makeLayout(join(scratch, `zstd-${layouts++}`), [image])
      return images.import(directory, { architecture })
    }
    for (const blob of [Buffer.concat([first!, rest!]), Buffer.concat([skipped, zstdCompressSync(layer)])]) {
      const error = await t.throwsAsync<SlicenetError>(imported(blob), INVALID)
      t.regex(error?.hint ?? '', /several frames/)
    }
    // The controls: one frame, and none, for all that its first byte is that of a frame that is passed over.
    const { id } = await imported(zstdCompressSync(layer))
    t.is((await imported(layer)).id, id)
  }
)

test.serial(
  'documents that are none are refused, and a link in a layout leads to nothing of the host’s',
  async (t) => {
    const refused = async (change: (directory: string) => Promise<unknown>): Promise<SlicenetError> => {
      const { directory } = await layoutOf({}, [file('a')])
      await change(directory)
      const archive = `${directory}.tar`
      await run('tar', ['--create', '--directory', directory, '--file', archive, '.'])
      return t.throwsAsync<SlicenetError>(images.import(archive, { architecture }), INVALID)
    }
    const index = async (text: string) =>
      refused(async (directory) => writeFile(join(directory, 'index.json'), text))
    t.regex((await index('{')).message, /no JSON/)
    t.regex(
      (await index('{"manifests": [{"digest": "sha256:../../x", "size": 1}]}')).message,
      /expected a digest/
    )
    const version = await refused(async (directory) =>
      writeFile(join(directory, 'oci-layout'), '{"imageLayoutVersion": "9.0"}')
    )
    t.regex(version.message, /oci-layout/)
    const secret = join(scratch, 'secret')
    await writeFile(secret, '{"manifests": []}')
    const linked = await refused(async (directory) => {
      await rm(join(directory, 'index.json'))
      await symlink(secret, join(directory, 'index.json'))
      // The control: whoever follows the link as the host does reads it.
      t.is(await readFile(join(directory, 'index.json'), 'utf8'), '{"manifests": []}')
    })
    t.regex(linked.message, /lacks index.json/)
  }
)

const badLayers: Readonly<Record<string, readonly [layer: readonly TarItem[], says: RegExp]>> = {
  'a path that leads out': [[file('a/../../b')], /a path with `\.\.`/],
  'a path that leads out in fields of pax': [[pax({ path: '../b' }), file('b')], /a path with `\.\.`/],
  'a whiteout that leads out': [[file('../.wh.b')], /a path with `\.\.`/],
  'a whiteout of its own parent': [[file('etc/.wh...')], /a whiteout of nothing/],
  'a hard link that leads out': [[hard('b', '../../etc/passwd')], /a path with `\.\.`/],
  'a hard link to nothing': [[hard('b', 'c')], /a hard link to nothing/],
  'a hard link to what only the host has': [
    [link('e', '/etc'), hard('b', 'e/hostname')],
    /a hard link to nothing/
  ],
  'a hard link to a directory': [[dir('d'), hard('b', 'd')], /a hard link to a directory/],
  'links in a circle': [[link('a', 'b'), link('b', 'a'), file('a/c')], /links that lead nowhere/],
  'a file below a file': [[file('a'), file('a/b')], /no directory/],
  'a device': [[{ name: 'null', flag: '3' }], /a device/],
  'a block device': [[{ name: 'disk', flag: '4' }], /a device/],
  'an entry of another kind': [[{ name: 'x', flag: 'V' }], /an unknown kind/],
  'a sparse file': [[pax({ 'GNU.sparse.major': '1' }), file('b')], /sparse/],
  'an owner that no vserver has': [[{ name: 'b', uid: 70_000 }], /an owner above/],
  'a file that is longer than the layer': [[{ name: 'b', size: 10_000 }], /ends within a file/],
  'a size that leads back': [[pax({ size: '-1024' }), file('b')], /ends within a file/],
  'a root that is no directory': [[file('.')], /a root that is no directory/],
  'a name that is too long': [[pax({ path: 'n'.repeat(256) }), file('b')], /too long/]
}
for (const [name, [layer, message]] of Object.entries(badLayers)) {
  test.serial(`a layer with ${name} is refused, and leaves nothing`, async (t) => {
    await refusedWhole(t, importLayers(LOWER, layer), message)
    // The control: the same layout with a harmless layer in its place.
    await t.notThrowsAsync(importLayers(LOWER, [file('b')]))
  })
}

test.serial(
  'a layer whose archive is damaged or cut off is refused, though every digest holds',
  async (t) => {
    const good = tarOf([file('a', 'x'.repeat(2000)), file('b')])
    const altered = Buffer.from(good)
    altered[3]! ^= 1
    const imported = async (layer: Buffer) => {
      const { directory } = await makeLayout(join(scratch, `raw-${layouts++}`), [{ layers: [layer] }])
      return images.import(directory, { architecture })
    }
    for (const [layer, message] of [
      [altered, /a header was altered/],
      [good.subarray(0, 1500), /ends within a file/],
      [good.subarray(0, 2700), /ends within a header/]
    ] as const) {
      await t.throwsAsync<SlicenetError>(imported(layer), { ...INVALID, message })
    }
    t.deepEqual(await leftovers(), [])
    await t.notThrowsAsync(imported(good))
  }
)

test.serial(
  'a file through a link of a lower layer lands inside, where tar alone would write outside',
  async (t) => {
    const outside = join(scratch, 'outside')
    await mkdir(outside)
    const lower = [link('way', outside), link('up', '../../../../../../../../../..')]
    const upper = [file('way/planted'), file(`up${outside}/planted-too`)]
    const id = await importLayers(lower, upper)
    t.deepEqual(await readdir(outside), [])
    t.like(await listing(id), { [`${outside.slice(1)}/planted`]: 'way/planted' })
    // The control: the same layers, one unpacked over the other.
    const naive = join(scratch, 'naive')
    await mkdir(naive)
    for (const [index, layer] of [lower, upper].entries()) {
      const archive = join(scratch, `naive-${index}.tar`)
      await writeFile(archive, tarOf(layer))
      await run('tar', ['--extract', '--directory', naive, '--file', archive])
    }
    t.true((await readdir(outside)).includes('planted'))
  }
)

test.serial('a layer that unpacks to more than the limit is given up while it is unpacked', async (t) => {
  const bomb = tarOf([file('zeros', Buffer.alloc(64 * 1024 * 1024))])
  t.true(gzipSync(bomb).length < 100_000)
  for (const compression of ['gzip', 'zstd'] satisfies Compression[]) {
    const { directory } = await makeLayout(join(scratch, `bomb-${compression}`), [
      { layers: [bomb], compression }
    ])
    const flatten = async (bytesMax: number): Promise<void> => {
      const work = await mkdtemp(join(scratch, 'work-'))
      const options = { workDirectory: work, architecture, bytesMax }
      try {
        await flattenLayout(directory, join(work, 'root.tar'), options)
      } finally {
        t.deepEqual(
          (await readdir(work)).filter((name) => name !== 'root.tar'),
          [],
          'no layer is left'
        )
      }
    }
    await t.throwsAsync<SlicenetError>(flatten(1024 * 1024), { code: 'TOO_LARGE' })
    await t.notThrowsAsync(flatten(bomb.length), 'the control: it fits a larger limit')
  }
})

test.serial('directories that no entry names count as files do', (t) => {
  const entry = {
    type: 'file',
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: 0,
    size: 0,
    target: '',
    offset: 0
  } as const
  const add = (entries: number): void => {
    const tree = new LayerTree()
    for (let index = 0; index < entries; index++) {
      tree.add({ ...entry, name: `${index}/${'d/'.repeat(2000)}f` }, 0)
    }
  }
  t.throws(() => add(260), { code: 'TOO_LARGE' })
  t.notThrows(() => add(10))
})

test.serial('ways through long links are bounded in all', (t) => {
  const entry = {
    type: 'file',
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: 0,
    size: 0,
    target: '',
    offset: 0
  } as const
  const tree = new LayerTree()
  for (let index = 0; index < 39; index++) {
    const target = `${'./'.repeat(1900)}l${index + 1}`
    tree.add({ ...entry, type: 'symlink', name: `l${index}`, target }, 0)
  }
  tree.add({ ...entry, type: 'directory', name: 'l39' }, 0)
  t.notThrows(() => tree.add({ ...entry, name: 'l0/f' }, 0))
  t.throws(
    () => {
      for (let index = 0; index < 1000; index++) tree.add({ ...entry, name: `l0/f${index}` }, 0)
    },
    { code: 'TOO_LARGE' }
  )
})

test.serial('what `docker save` gave before it was OCI’s is refused with what to do', async (t) => {
  const archive = join(scratch, 'docker.tar')
  const config = `${'a'.repeat(64)}.json`
  await writeFile(archive, tarOf([file('manifest.json', '[]'), file(config, '{}'), file('x/layer.tar', '')]))
  const error = await t.throwsAsync<SlicenetError>(images.import(archive, { architecture }), INVALID)
  t.regex(error?.hint ?? '', /docker-archive/)
  // The control: a root that happens to have a file of that name.
  await writeFile(archive, tarOf([file('manifest.json', '[]'), dir('bin')]))
  await t.notThrowsAsync(images.import(archive, { architecture }))
})

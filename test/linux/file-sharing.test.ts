import { mkdir, readFile, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { systemClock as clock } from '../../src/base/clock.ts'
import { run } from '../../src/base/host-program.ts'
import { shareFiles } from '../../src/enforce/file-sharing.ts'
import { ImageStore } from '../../src/enforce/image-store.ts'
import { ownDirectory } from './own-names.ts'

let scratch: string

test.beforeEach(async () => {
  scratch = await ownDirectory('share')
})

test.afterEach.always(async () => {
  await rm(scratch, { recursive: true, force: true })
})

const LARGE = 'x'.repeat(100_000)
const LONG = 'n'.repeat(255)

/** A root of these files, every time fixed. */
async function makeRoot(name: string, files: Readonly<Record<string, string>>): Promise<string> {
  const root = join(scratch, name)
  for (const [path, content] of Object.entries(files)) {
    await mkdir(join(root, path, '..'), { recursive: true })
    await writeFile(join(root, path), content)
  }
  await run('find', [root, '-exec', 'touch', '--no-dereference', '--date=@1700000000', '{}', '+'])
  return root
}

async function store(name: string): Promise<ImageStore> {
  const images = new ImageStore({ clock }, { directory: join(scratch, name) })
  await images.start()
  return images
}

async function inode(path: string): Promise<number> {
  return (await stat(path)).ino
}

test.serial('images share the files that they have in common, and keep their ids', async (t) => {
  const first = await makeRoot('first', {
    'lib/common': LARGE,
    'lib/own': `${LARGE}1`,
    small: 'x',
    [LONG]: 'long'
  })
  const second = await makeRoot('second', {
    'lib/common': LARGE,
    'lib/own': `${LARGE}2`,
    small: 'x',
    [LONG]: 'long'
  })
  const together = await store('together')
  const one = await together.import(first)
  const two = await together.import(second)
  const [a, b] = await Promise.all([together.open(one.id), together.open(two.id)])
  t.is(await inode(join(a, 'lib/common')), await inode(join(b, 'lib/common')))
  t.not(await inode(join(a, 'lib/own')), await inode(join(b, 'lib/own')))
  t.is(await inode(join(a, 'small')), await inode(join(b, 'small')))
  t.is(await inode(join(a, LONG)), await inode(join(b, LONG)))
  t.true(await together.verify(one.id))
  t.true(await together.verify(two.id))
  // The control: a store of its own shares nothing, and gives the same id.
  const alone = await store('alone')
  t.is((await alone.import(second)).id, two.id)
  t.is((await stat(join(await alone.open(two.id), 'lib/common'))).nlink, 1)
  await together.remove(one.id)
  t.is(await readFile(join(b, 'lib/common'), 'utf8'), LARGE)
  t.true(await together.verify(two.id))
})

test.serial('what differs in content, place or any attribute is not shared', async (t) => {
  const base = await makeRoot('base', { common: LARGE })
  const changes: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
    content: async (path) => writeFile(path, `y${LARGE.slice(1)}`),
    mode: async (path) => run('chmod', ['4755', path]),
    owner: async (path) => run('chown', ['7', path]),
    group: async (path) => run('chgrp', ['7', path]),
    time: async (path) => utimes(path, 5, 5),
    nothing: async () => {}
  }
  for (const [what, change] of Object.entries(changes)) {
    const root = await makeRoot(`changed-${what}`, { common: LARGE })
    await change(join(root, 'common'))
    if (what === 'content') await utimes(join(root, 'common'), 1_700_000_000, 1_700_000_000)
    const { files } = await shareFiles(root, [base])
    t.is(files, what === 'nothing' ? 1 : 0, what)
  }
  const elsewhere = await makeRoot('elsewhere', { other: LARGE })
  t.is((await shareFiles(elsewhere, [base])).files, 0)
})

test.serial('a link in another root leads to nothing that is shared', async (t) => {
  const outside = await makeRoot('outside', { file: LARGE })
  const other = join(scratch, 'other')
  await mkdir(other)
  await symlink(outside, join(other, 'lib'))
  const root = await makeRoot('root', { 'lib/file': LARGE })
  t.is((await shareFiles(root, [other])).files, 0)
  t.is((await stat(join(outside, 'file'))).nlink, 1)
  // The control: a directory in its place is shared with.
  t.is((await shareFiles(root, [await makeRoot('plain', { 'lib/file': LARGE })])).files, 1)
})

test.serial('two equal files of one image do not become one, which would be another image', async (t) => {
  const both = { a: LARGE, b: LARGE }
  const linked = await makeRoot('linked', { a: LARGE })
  await run('ln', [join(linked, 'a'), join(linked, 'b')])
  const separate = await makeRoot('separate', both)
  const images = await store('store')
  const one = await images.import(linked)
  const two = await images.import(separate)
  t.not(one.id, two.id)
  t.true(await images.verify(one.id))
  t.true(await images.verify(two.id))
  const root = await images.open(two.id)
  t.not(await inode(join(root, 'a')), await inode(join(root, 'b')))
  t.is((await (await store('alone')).import(separate)).id, two.id)
})

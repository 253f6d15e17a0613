import { open, rm, writeFile } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'
import test from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import { LayerTree } from '../../src/enforce/layer-tree.ts'
import { readTar, type TarEntry } from '../../src/enforce/tar-reader.ts'
import { tarOfTree } from '../../src/enforce/tar-writer.ts'
import { numbersOf } from '../base/seeded-numbers.ts'
import { tarOf, type TarItem } from './fixtures/oci-layout.ts'
import { ownDirectory } from './own-names.ts'

const ROUNDS = 1000
const NAMES = [
  'a',
  'b',
  'a/b',
  'a/b/c',
  'b/a',
  './a/',
  '/a',
  '.',
  'c//d',
  '.wh.a',
  'a/.wh.b',
  'a/.wh..wh..opq'
]
const TARGETS = ['a', '/a', '../b', 'b/..', '/', '.', 'a/b', '/etc/passwd', '../../../../etc']
const FLAGS = ['0', '0', '0', '2', '2', '5', '6', '\0']
/** What most layers begin with, so that some come out well. */
const BEGUN: readonly TarItem[] = ['a/', 'b/'].map((name) => ({ name, flag: '5' }))
/** Of one in ten or so. */
const ODD_NAMES = ['/', '.', '..', 'a/../b', '.wh...', '', 'x'.repeat(99)]
const ODD_TARGETS = ['..', '', '.wh.a']
const ODD_FLAGS = ['1', '1', '1', '3', 'x', 'x', 'L', 'K', 'S', 'g']

/** What is wrong with entries that are unpacked one after the other, links followed; undefined when nothing is. */
function danger(entries: readonly TarEntry[]): string | undefined {
  const directories = new Set<string>(['.'])
  const files = new Set<string>()
  for (const { name, type, target } of entries) {
    const path = normalize(name).replace(/\/$/, '') || '.'
    if (name.startsWith('/') || name.split('/').includes('..')) return `leads out: ${name}`
    if (path !== '.' && !directories.has(dirname(path))) return `not in a directory: ${name}`
    if (files.has(path) || (directories.has(path) && path !== '.')) return `there before: ${name}`
    if (type === 'hardlink' && !files.has(normalize(target))) return `link to what is not there: ${name}`
    if (type === 'directory') directories.add(path)
    else files.add(path)
  }
  return undefined
}

test('whatever layers hold, what they come to is refused or unpacks into its own directories alone', async (t) => {
  const directory = await ownDirectory('layers')
  t.teardown(async () => rm(directory, { recursive: true, force: true }))
  const seed = Number(process.env.SLICENET_FUZZ_SEED ?? 1)
  const next = numbersOf(seed)
  const pick = <T>(from: readonly T[]): T => from[next(from.length)]!
  const randomItem = (): TarItem => {
    const flag = pick(next(10) === 0 ? ODD_FLAGS : FLAGS)
    const content = pick(['', 'content', pick(NAMES), '17 path=../../out\n', '12 path=a/b\n', '10 size=-9\n'])
    return {
      name: pick(next(20) === 0 ? ODD_NAMES : NAMES),
      flag,
      target: pick(next(10) === 0 ? ODD_TARGETS : TARGETS),
      // Links, directories and pipes have no bytes, which others would take for a header.
      content: '1256'.includes(flag) ? '' : content,
      mode: next(0o10000),
      ...(next(50) === 0 ? { size: next(5000) } : {})
    }
  }
  const counts = { made: 0, refused: 0, rawDanger: 0 }
  for (let round = 0; round < ROUNDS; round++) {
    const layers = [0, 1].map(() => {
      const items = [...(next(4) === 0 ? [] : BEGUN), ...Array.from({ length: 1 + next(4) }, randomItem)]
      const bytes = tarOf(items)
      if (next(30) === 0) bytes[next(bytes.length)]! ^= 1 << next(8)
      return next(30) === 0 ? bytes.subarray(0, next(bytes.length)) : bytes
    })
    const paths = layers.map((_, index) => join(directory, `${round}-${index}`))
    await Promise.all(paths.map(async (path, index) => writeFile(path, layers[index]!)))
    const files = await Promise.all(paths.map(async (path) => open(path)))
    const raw: TarEntry[] = []
    try {
      const tree = new LayerTree()
      for (const [index, file] of files.entries()) {
        const entries = await Array.fromAsync(readTar(file))
        raw.push(...entries)
        for (const entry of entries) tree.hide(entry)
        for (const entry of entries) tree.add(entry, index)
      }
      const out = join(directory, `${round}-out`)
      await writeFile(out, Buffer.concat(await Array.fromAsync(tarOfTree(tree, files))))
      await using made = await open(out)
      t.is(
        danger(await Array.fromAsync(readTar(made))),
        undefined,
        `SLICENET_FUZZ_SEED=${seed}, round ${round}`
      )
      counts.made += 1
    } catch (error) {
      if (!(error instanceof SlicenetError) || error.code !== 'IMAGE_INVALID') throw error
      counts.refused += 1
    } finally {
      await Promise.all(files.map(async (file) => file.close()))
    }
    // The control: the entries as they came are what must not be unpacked so.
    if (danger(raw) !== undefined) counts.rawDanger += 1
  }
  t.true(
    Object.values(counts).every((count) => count > ROUNDS / 20),
    JSON.stringify(counts)
  )
})

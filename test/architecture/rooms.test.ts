import { readdir, readFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { ROOMS, faults, type SourceFile } from './rooms.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

async function sources(): Promise<SourceFile[]> {
  const entries = await readdir(join(ROOT, 'src'), { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile())
  return Promise.all(
    files.map(async (entry) => {
      const path = join(entry.parentPath, entry.name)
      return { path: relative(ROOT, path), text: await readFile(path, 'utf8') }
    })
  )
}

test('every file keeps to the rooms and rules of the tree', async (t) => {
  const files = await sources()
  t.true(files.length > 100)
  const found = faults(files)
  t.is(found.join('\n'), '')
})

test('docs/architecture.md tells the same table', async (t) => {
  const text = await readFile(join(ROOT, 'docs/architecture.md'), 'utf8')
  const rows = [...text.matchAll(/^\| (?!src\/)(\w+)\/ \|[^|]*\| ([^|]*) \|$/gm)]
  const told = Object.fromEntries(rows.map(([, room = '', list = '']) => [room, roomsOf(list)]))
  const { web: _notYet, ...built } = ROOMS
  const sorted = Object.entries(built).map(([room, list]) => [
    room,
    list.filter((name) => name !== 'web').sort()
  ])
  t.deepEqual(told, Object.fromEntries(sorted))
})

function roomsOf(list: string): string[] {
  const others = /^all but (.*)$/.exec(list)?.[1]?.split(', ')
  if (others === undefined) return list === '–' ? [] : list.split(', ').sort()
  const left = new Set(['base', 'web', 'daemon', ...others])
  return Object.keys(ROOMS)
    .filter((room) => !left.has(room))
    .sort()
}

test('the table has no circles', (t) => {
  const reaches = (from: string, to: string, seen = new Set<string>()): boolean =>
    (ROOMS[from] ?? []).some((next) => {
      if (next === to) return true
      if (seen.has(next)) return false
      seen.add(next)
      return reaches(next, to, seen)
    })
  const circles = Object.keys(ROOMS).filter((room) => reaches(room, room))
  t.deepEqual(circles, [])
})

const DOC = '/** What it is for. */\n'
const bad: Readonly<Record<string, readonly [path: string, text: string, fault: RegExp]>> = {
  'an import of a room that is not in its list': [
    'src/ticket/a.ts',
    `${DOC}import { x } from '../store/b.ts'`,
    /ticket imports store \(src\/store\/b\.ts\)/
  ],
  'a type of such a room': [
    'src/ticket/a.ts',
    `${DOC}import type { X } from '../peer/b.ts'`,
    /ticket imports peer/
  ],
  'an import over several lines': [
    'src/wire/a.ts',
    `${DOC}import {\n  x,\n  y\n} from '../ticket/b.ts'`,
    /wire imports ticket/
  ],
  'a re-export of such a room': [
    'src/wire/a.ts',
    `${DOC}export { x } from '../ticket/b.ts'`,
    /wire imports ticket/
  ],
  'an import at run time': ['src/cli/a.ts', `${DOC}await import('../peer/b.ts')`, /cli imports peer/],
  'an import for its effects': ['src/base/a.ts', `${DOC}import '../wire/b.ts'`, /base imports wire/],
  'the daemon importing the command line': [
    'src/daemon/a.ts',
    `${DOC}import { x } from '../cli/b.ts'`,
    /daemon imports cli/
  ],
  'an import of the public list': ['src/cli/a.ts', `${DOC}import { x } from '../index.ts'`, /in no room/],
  'an import of a test': ['src/cli/a.ts', `${DOC}import { x } from '../../test/b.ts'`, /in no room/],
  'a second file that spawns': [
    'src/node/a.ts',
    `${DOC}import { spawn } from 'node:child_process'`,
    /imports node:child_process/
  ],
  'a spawn by the short name': [
    'src/node/a.ts',
    `${DOC}import { spawn } from 'child_process'`,
    /imports child_process/
  ],
  'a second file that makes system calls': [
    'src/enforce/a.ts',
    `${DOC}import koffi from 'koffi'`,
    /imports koffi/
  ],
  'a system call through require': ['src/enforce/a.ts', `${DOC}require('koffi')`, /imports koffi/],
  'the environment read elsewhere': [
    'src/node/a.ts',
    `${DOC}const home = process.env['HOME']`,
    /reads process\.env/
  ],
  'the environment taken apart': ['src/node/a.ts', `${DOC}const { env } = process`, /reads process\.env/],
  'no doc comment': ['src/base/a.ts', 'export const x = 1\n', /doc comment/],
  'a name in camel case': ['src/base/someThing.ts', DOC, /kebab-case/],
  'a file of helpers': ['src/base/helpers.ts', DOC, /named helpers/],
  'a second index': ['src/base/index.ts', DOC, /named index/],
  'a file without end': ['src/base/a.ts', DOC + '\n'.repeat(450), /451 lines/],
  'an unknown room': ['src/attic/a.ts', DOC, /attic, which is no room/],
  'a file outside of the rooms': ['src/a.ts', DOC, /is in no room/]
}
for (const [name, [path, text, fault]] of Object.entries(bad)) {
  test(`${name} is found`, (t) => {
    const found = faults([{ path, text }])
    t.is(found.length, 1, found.join('\n'))
    t.regex(found[0] ?? '', fault)
    t.true(found[0]?.startsWith(`${path}: `))
  })
}

const good: Readonly<Record<string, readonly [path: string, text: string]>> = {
  'an import of its own room, of base and of a room in its list': [
    'src/ticket/a.ts',
    `${DOC}import { x } from './b.ts'\nimport { y } from '../base/c.ts'\nimport { z } from '../wire/d.ts'`
  ],
  'a folder within a room': ['src/enforce/network/a.ts', `${DOC}import { x } from '../../ticket/b.ts'`],
  'a type of what only one file may use': [
    'src/enforce/a.ts',
    `${DOC}import type { ChildProcess } from 'node:child_process'`
  ],
  'a comment that speaks of process.env': ['src/base/a.ts', `${DOC}// Not of process.env.\n`],
  'a program that begins with its interpreter': ['src/cli/a.ts', `#!/usr/bin/env node\n${DOC}`],
  'the public list': ['src/index.ts', `${DOC}export { x } from './base/a.ts'`]
}
for (const [name, [path, text]] of Object.entries(good)) {
  test(`${name} is no fault`, (t) => {
    t.deepEqual(faults([{ path, text }]), [])
  })
}

import test from 'ava'
import * as v from 'valibot'
import { uploadedFileSchema } from '../../src/protocol/node-protocol.ts'

const isPath = (path: string): boolean =>
  v.is(uploadedFileSchema, { path, content: new Uint8Array(), mode: 0o644 })

test('files go to absolute paths', (t) => {
  for (const path of ['/a', '/root/mesh.py', '/a/.profile', '/a/..b/c..', '/...']) t.true(isPath(path), path)
})

test('no path of a file climbs, names a directory or is relative', (t) => {
  for (const path of [
    '/..',
    '/../etc/passwd',
    '/a/../b',
    '/a/..',
    '/.',
    '/./a',
    '/a/',
    '/',
    '',
    'a',
    'a/b',
    '/a\nb/..'
  ]) {
    t.false(isPath(path), path)
  }
})

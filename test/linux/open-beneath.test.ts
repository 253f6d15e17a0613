/** Paths inside a root are looked up whatever else happens on the machine meanwhile. */
import { once } from 'node:events'
import { closeSync, constants, mkdirSync, openSync, symlinkSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { start } from '../../src/base/host-program.ts'
import { openBeneath } from '../../src/enforce/syscall.ts'
import { ownDirectory } from './own-names.ts'

/** Renames a file to and fro for a while, which makes the kernel unsure of every `..` on the machine. */
const RENAME = `
import os, sys, time
a, b = sys.argv[1] + '/a', sys.argv[1] + '/b'
open(a, 'w').close(); print('begun', flush=True)
end = time.monotonic() + 20
while time.monotonic() < end: os.rename(a, b); os.rename(b, a)`

test('a path with `..` is opened while files are renamed elsewhere', async (t) => {
  const directory = await ownDirectory('open')
  mkdirSync(join(directory, 'root/deep/down'), { recursive: true })
  symlinkSync('/deep/down', join(directory, 'root/link'))
  const root = openSync(join(directory, 'root'), constants.O_RDONLY | constants.O_DIRECTORY)
  const renaming = start('python3', ['-c', RENAME, directory], ['ignore', 'pipe', 'inherit'])
  const ended = once(renaming, 'exit')
  t.teardown(async () => {
    renaming.kill('SIGKILL')
    await ended
    closeSync(root)
    await rm(directory, { recursive: true })
  })
  await once(renaming.stdout!, 'data')
  for (let round = 0; round < 20_000; round++) {
    closeSync(openBeneath(root, '/link/..', constants.O_RDONLY | constants.O_DIRECTORY))
  }
  t.is(renaming.exitCode, null, 'it was renamed all the while')
})

import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { start } from '../../src/base/host-program.ts'
import { checkStore } from '../../src/store/check-store.ts'
import { startedStore, temporaryDirectory } from '../store/directory.ts'
import { watchWriter, WRITER } from '../store/writer.ts'

const VALUE_BYTES = 1000

/** Runs the writer on a file system of its own, seen by it alone and gone with it; what was stored is copied out. */
const SCRIPT = `
  mount -t tmpfs -o size=1m,mode=700 tmpfs "$1/full"
  "$2" "$3" "$1/full/store" 1 ${VALUE_BYTES} || true
  cp -r "$1/full/store" "$1/copy"
`

test('on a file system that is really full nothing acknowledged is lost', async (t) => {
  const directory = await temporaryDirectory(t)
  await mkdir(join(directory, 'full'))
  const args = ['-m', 'sh', '-ec', SCRIPT, 'sh', directory, process.execPath, WRITER]
  const writer = watchWriter(t, start('unshare', args, ['ignore', 'pipe', 'inherit']))
  const printed = await writer.lines(Infinity)
  const error = JSON.parse(printed.at(-1) ?? '') as { code: string; hint: string; message: string }
  t.is(error.code, 'STORE_FAILED')
  t.regex(error.message, /ENOSPC|No space left/)
  t.regex(error.hint, /disk is full/)
  const acknowledged = printed.slice(1, -1)
  t.true(acknowledged.length > 100)

  const copy = join(directory, 'copy')
  t.false((await checkStore(copy)).fatal)
  const store = await startedStore(t, { directory: copy })
  for (const n of acknowledged) t.is((await store.get('rows', `row-${n}`))?.length, VALUE_BYTES)
  await store.stop()
})

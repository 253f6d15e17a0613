import test from 'ava'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES } from '../../src/store/record.ts'
import { flipBit, makeStore, segmentsOf, temporaryDirectory } from '../store/directory.ts'
import { cli } from './cli-fixture.ts'

test('a state that is not there is NOT_FOUND', async (t) => {
  const home = await temporaryDirectory(t)
  for (const what of ['check', 'repair']) {
    const { exitCode, stderr } = await cli(['store', what], { home })
    t.is(exitCode, 1)
    t.regex(stderr, /code: NOT_FOUND/)
  }
})

test('a damaged state is STORE_CORRUPT until it is repaired, which tells what is lost', async (t) => {
  const home = await temporaryDirectory(t)
  const directory = join(home, 'store')
  await cp(await makeStore(t, { records: 4 }), directory, { recursive: true })
  const sound = await cli(['store', 'check'], { home })
  t.is(sound.exitCode, 0)
  t.regex(sound.stdout, /\nrecords: +4\n/)

  const [segment = ''] = await segmentsOf(directory)
  await flipBit(segment, SEGMENT_HEADER_BYTES + 3 * (RECORD_HEADER_BYTES + 21) - 1)
  const damaged = await cli(['store', 'check', '--json'], { home })
  t.is(damaged.exitCode, 1)
  t.like(damaged.json(), { store: { records: 2, fatal: true }, error: { code: 'STORE_CORRUPT' } })

  const repaired = await cli(['store', 'repair'], { home })
  t.is(repaired.exitCode, 0)
  t.regex(
    repaired.stdout,
    /\nrecords kept: +2\nrecords lost: +2\nlost after: +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n/
  )
  t.regex(repaired.stdout, /\nset aside in: +\S+\.bin\n$/)
  t.is((await cli(['store', 'check'], { home })).exitCode, 0)
})

import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { VserverRecords } from '../../src/enforce/vserver-records.ts'
import { vserverSpec } from './enforcer-contract.ts'

test('a record that a crash left half written is removed at the next start, and whole ones are read', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-test-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  const before = new VserverRecords({ directory })
  await before.start()
  await before.put({
    spec: vserverSpec('sha256:0', { id: 'whole' }),
    container: 'spare-1',
    uidBase: 1,
    phase: 'making'
  })
  await writeFile(join(directory, 'half.json.new'), '{"spec":')
  await writeFile(join(directory, 'torn.json'), '')

  const after = new VserverRecords({ directory })
  await after.start()
  t.deepEqual(
    after.all().map(({ spec }) => spec.id),
    ['whole']
  )
  t.deepEqual(await readdir(directory), ['whole.json'])
})

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { checkStore } from '../../src/store/check-store.ts'
import { startedStore, temporaryDirectory } from './directory.ts'
import { startWriter } from './writer.ts'

const ROUNDS = 6

for (const [title, mode] of [
  ['', undefined],
  [', while the journal is compacted again and again', 'churn']
] as const) {
  test(`a commit acknowledged before kill -9 is there after it${title}`, async (t) => {
    const directory = await temporaryDirectory(t)
    const acknowledged = new Set<number>()
    let next = 1
    for (let round = 0; round < ROUNDS; round++) {
      const writer = startWriter(t, directory, { first: next, ...(mode === undefined ? {} : { mode }) })
      await writer.lines(20 + 37 * round)
      const printed = (await writer.kill()).slice(1).map(Number)
      t.true(printed.length >= 19)
      for (const n of printed) acknowledged.add(n)

      const report = await checkStore(directory)
      t.false(report.fatal, report.message)
      const store = await startedStore(t, { directory })
      const found = new Map<string, Uint8Array>()
      for await (const [key, value] of store.iterate('rows')) found.set(key, value)
      await store.stop()
      for (const n of acknowledged) {
        t.deepEqual(Buffer.from(found.get(`row-${n}`) ?? []).toString(), `${n} `.repeat(16).slice(0, 16))
      }
      // Each of the writers in the fixture can have had one commit that was kept and not acknowledged.
      t.true(found.size <= acknowledged.size + 4 * (round + 1))
      next = Math.max(...acknowledged) + 100
    }
    const { segments, snapshot } = await checkStore(directory)
    if (mode === undefined) t.true(segments > 1)
    else t.true(snapshot?.sound)
  })
}

test('control: a writer that acknowledges before the store does is caught by the same check', async (t) => {
  const directory = await temporaryDirectory(t)
  const writer = startWriter(t, directory, { mode: 'early' })
  const printed = (await writer.lines(Infinity)).slice(1)
  t.is(printed.length, 100)
  t.false((await checkStore(directory)).fatal)
  const found = await rowNamesOf(t, directory)
  t.true(printed.some((n) => !found.has(`row-${n}`)))
})

test('a second daemon is refused with the pid of the first, and let in when that was killed', async (t) => {
  const directory = await temporaryDirectory(t)
  const first = startWriter(t, directory)
  await first.lines(1)
  const before = await readFile(join(directory, 'owner'), 'utf8')

  const [said = ''] = await startWriter(t, directory).lines(1)
  const refusal = JSON.parse(said) as { code: string; hint: string; details: { pid: number } }
  t.is(refusal.code, 'STORE_LOCKED')
  t.is(refusal.details.pid, first.child.pid ?? 0)
  t.true(refusal.hint.includes(String(first.child.pid)))
  await t.throwsAsync(startedStore(t, { directory }), { code: 'STORE_LOCKED' })
  t.is(await readFile(join(directory, 'owner'), 'utf8'), before)

  await first.kill()
  const third = startWriter(t, directory, { first: 100_000 })
  t.deepEqual((await third.lines(2))[0], 'started')
  await third.kill()
})

async function rowNamesOf(t: ExecutionContext, directory: string): Promise<Set<string>> {
  const store = await startedStore(t, { directory })
  const names = new Set<string>()
  for await (const [key] of store.iterate('rows')) names.add(key)
  await store.stop()
  return names
}

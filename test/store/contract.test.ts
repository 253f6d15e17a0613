import test from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { createStore } from '../../src/store/disk-store.ts'
import { MemoryStore } from '../../src/store/memory-store.ts'
import { testStoreContract } from './contract.ts'
import { temporaryDirectory } from './directory.ts'

testStoreContract(test, 'memory', async () => new MemoryStore())

testStoreContract(test, 'disk', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = createStore(
    { clock: systemClock, logger: silentLogger },
    { directory, segmentBytesMax: 4096 }
  )
  t.teardown(() => store.stop())
  return store
})

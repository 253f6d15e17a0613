import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { DhtUpkeep } from '../../src/peer/dht-upkeep.ts'
import type { OverlayDht } from '../../src/peer/overlay.ts'
import { ManualClock } from '../base/manual-clock.ts'

/** A DHT that counts what it is told, under the digests' own names. */
function upkeep() {
  const clock = new ManualClock()
  const provided: string[] = []
  const withdrawn: string[] = []
  const nameOf = (digest: Uint8Array): string => Buffer.from(digest).toString('hex').slice(0, 8)
  const dht: OverlayDht = {
    async *put() {},
    async *get() {},
    async *provide(digest) {
      provided.push(nameOf(digest))
      yield 'somebody'
    },
    withdraw: async (digest) => void withdrawn.push(nameOf(digest)),
    async *findProviders() {}
  }
  const part = new DhtUpkeep({ clock, logger: silentLogger, dht: () => dht }, { putIntervalMs: 60_000 })
  return { part, clock, provided, withdrawn }
}

test('topics are announced one after the other, and again long before others forget', async (t) => {
  const { part, clock, provided } = upkeep()
  part.start()
  part.announce(['a', 'b', 'c'])
  await clock.advance(100)
  t.is(provided.length, 1)
  await clock.advance(10_000)
  t.is(provided.length, 3)
  t.is(new Set(provided).size, 3)
  await clock.advance(LIMITS.providerLifetimeMs / 2)
  t.is(provided.length, 6)
  await part.stop()
})

test('what is not to be announced any more is withdrawn, what stays is not announced anew', async (t) => {
  const { part, clock, provided, withdrawn } = upkeep()
  part.start()
  part.announce(['a', 'b'])
  await clock.advance(10_000)
  const [, b] = provided
  part.announce(['a', 'c'])
  await clock.advance(10_000)
  t.is(provided.length, 3)
  t.deepEqual(withdrawn, [b ?? 'none'])
  await part.stop()
})

test('there is a maximum of topics', async (t) => {
  const { part, clock, provided } = upkeep()
  part.start()
  part.announce(Array.from({ length: LIMITS.rendezvousKeysMax + 10 }, (_one, index) => `${index}`))
  await clock.advance(LIMITS.providerLifetimeMs / 4)
  t.is(new Set(provided).size, LIMITS.rendezvousKeysMax)
  await part.stop()
})

import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { DhtUpkeep } from '../../src/peer/dht-upkeep.ts'
import type { OverlayDht } from '../../src/peer/overlay.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { newKey, nodeAdvert } from './fixtures/network.ts'

/** A DHT that counts what it is told, under the digests' own names. */
function upkeep(answer: () => Promise<void> = async () => {}) {
  const clock = new ManualClock()
  const provided: string[] = []
  const withdrawn: string[] = []
  const put: Uint8Array[] = []
  const nameOf = (digest: Uint8Array): string => Buffer.from(digest).toString('hex').slice(0, 8)
  const dht: OverlayDht = {
    async *put(_key, value) {
      put.push(value)
      await answer()
      yield 'somebody'
    },
    async *get() {},
    async *provide(digest) {
      provided.push(nameOf(digest))
      yield 'somebody'
    },
    withdraw: async (digest) => void withdrawn.push(nameOf(digest)),
    async *findProviders() {}
  }
  const part = new DhtUpkeep({ clock, logger: silentLogger, dht: () => dht }, { putIntervalMs: 60_000 })
  return { part, clock, provided, withdrawn, put }
}

test('topics are announced one after the other, and again long before others forget', async (t) => {
  const { part, clock, provided } = upkeep()
  part.start()
  part.announce(['a', 'b', 'c'])
  await clock.advance(100)
  t.is(provided.length, 1)
  await clock.advance(60_000)
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
  await clock.advance(60_000)
  const [, b] = provided
  part.announce(['a', 'c'])
  await clock.advance(60_000)
  t.is(provided.length, 3)
  t.deepEqual(withdrawn, [b ?? 'none'])
  await part.stop()
})

test('there is a maximum of topics', async (t) => {
  const { part, clock, provided } = upkeep()
  part.start()
  part.announce(Array.from({ length: LIMITS.rendezvousKeysMax + 10 }, (_one, index) => `${index}`))
  await clock.advance(LIMITS.providerLifetimeMs / 3)
  t.is(new Set(provided).size, LIMITS.rendezvousKeysMax)
  await part.stop()
})

test('what is put into the DHT is good until the next one is; of one who leaves nothing is put', async (t) => {
  const { part, clock, put } = upkeep()
  const key = newKey()
  const now = clock.now()
  const short = nodeAdvert(key, { notBefore: now, notAfter: now + 120_000 })
  const long = nodeAdvert(key, { notBefore: now, notAfter: now + LIMITS.advertLifetimeMsMax })
  part.start()
  part.advert('a', short, async () => long)
  await clock.advance(1000)
  t.deepEqual(put, [long.bytes])
  part.advert(
    'a',
    nodeAdvert(key, { notBefore: now, notAfter: now + 600_000, leaving: true }),
    async () => long
  )
  await clock.advance(120_000)
  t.is(put.length, 1)
  await part.stop()
})

test('what nobody took is tried again soon when that took no time, rarely when it took long', async (t) => {
  const putsInFiveMinutes = async (failsAfterMs: number): Promise<number> => {
    const { part, clock, put } = upkeep(async () => {
      await clock.sleep(failsAfterMs)
      throw new Error('nobody answers')
    })
    const now = clock.now()
    part.start()
    part.advert('a', nodeAdvert(newKey(), { notBefore: now, notAfter: now + LIMITS.advertLifetimeMsMax }))
    await clock.advance(LIMITS.advertLifetimeMsMax / 2)
    const puts = put.length
    const stopped = part.stop()
    await clock.advance(failsAfterMs)
    await stopped
    return puts
  }
  // Five minutes: one in five seconds, or one after three times the twenty seconds that one takes.
  t.is(await putsInFiveMinutes(1), 60)
  t.is(await putsInFiveMinutes(20_000), 5)
})

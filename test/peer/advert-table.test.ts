import test from 'ava'
import type { Clock } from '../../src/base/clock.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { advertKey, AdvertTable, type DirectoryEntry } from '../../src/peer/advert-table.ts'
import { advertisementObject } from '../../src/ticket/advertisement.ts'
import { agentAdvert, newKey, nodeAdvert } from './fixtures/network.ts'

/** A clock that stands still unless told. */
function steppedClock(): Clock & { step(ms: number): void } {
  let passed = 0
  const start = Date.now()
  return {
    now: () => start + passed,
    monotonic: () => passed,
    sleep: async () => Promise.reject(new Error('nobody sleeps here')),
    timeout: (ms) => AbortSignal.timeout(ms),
    step: (ms) => {
      passed += ms
    }
  }
}

function table(entriesMax?: number): { clock: ReturnType<typeof steppedClock>; table: AdvertTable } {
  const clock = steppedClock()
  return { clock, table: new AdvertTable({ clock }, entriesMax === undefined ? {} : { entriesMax }) }
}

test('a newer advert takes the place of an older one, never the other way', (t) => {
  const { table: adverts } = table()
  const key = newKey()
  const older = nodeAdvert(key, { seq: 5 })
  const newer = nodeAdvert(key, { seq: 6 })
  t.is(adverts.offer(older.bytes, 'gossip').verdict, 'new')
  t.is(adverts.offer(newer.bytes, 'dht').verdict, 'new')
  t.is(adverts.offer(older.bytes, 'pull').verdict, 'stale')
  t.is(adverts.offer(newer.bytes, 'pull').verdict, 'known')
  t.is(adverts.get(advertKey(key.principal, 'node'))?.advert.id, newer.id)
})

test('a second advert of the same sequence number is passed over', (t) => {
  const { table: adverts } = table()
  const key = newKey()
  t.is(adverts.offer(nodeAdvert(key, { seq: 5, name: 'one' }).bytes, 'gossip').verdict, 'new')
  t.is(adverts.offer(nodeAdvert(key, { seq: 5, name: 'two' }).bytes, 'gossip').verdict, 'stale')
})

test('a peer may be node and agent under one key', (t) => {
  const { table: adverts } = table()
  const key = newKey()
  t.is(adverts.offer(nodeAdvert(key, { seq: 2 }).bytes, 'gossip').verdict, 'new')
  t.is(adverts.offer(agentAdvert(key, { seq: 1 }).bytes, 'gossip').verdict, 'new')
  t.is(adverts.entries().length, 2)
})

test('forged, oversized and long-lived adverts are invalid', (t) => {
  const { table: adverts, clock } = table()
  const advert = nodeAdvert(newKey())
  for (const at of [advert.bytes.length - 3, advert.bytes.length >> 1, 3]) {
    const forged = Uint8Array.from(advert.bytes)
    forged[at] = (forged[at] ?? 0) ^ 1
    t.is(adverts.offer(forged, 'gossip').verdict, 'invalid', `byte ${at}`)
  }
  t.is(adverts.offer(new Uint8Array(LIMITS.objectBytesMax + 1), 'gossip').verdict, 'invalid')
  t.is(adverts.offer(new Uint8Array(0), 'gossip').verdict, 'invalid')
  const now = clock.now()
  const ageless = nodeAdvert(newKey(), { notBefore: now, notAfter: now + LIMITS.advertLifetimeMsMax + 1 })
  t.is(adverts.offer(ageless.bytes, 'gossip').verdict, 'invalid')
  t.is(adverts.entries().length, 0)
})

test('an advert signed by another than its issuer is invalid', (t) => {
  const { table: adverts } = table()
  const [issuer, thief] = [newKey(), newKey()]
  const { body } = nodeAdvert(issuer)
  const stolen = advertisementObject.sign(body, { principal: issuer.principal, seed: thief.seed })
  t.is(adverts.offer(stolen.bytes, 'gossip').verdict, 'invalid')
})

test('adverts of the past and of the future are passed over, a small skew is not', (t) => {
  const { table: adverts, clock } = table()
  const now = clock.now()
  const past = nodeAdvert(newKey(), { notBefore: now - 1000, notAfter: now })
  t.is(adverts.offer(past.bytes, 'gossip').verdict, 'expired')
  const skewed = now + LIMITS.advertSkewMsMax
  const soon = nodeAdvert(newKey(), { notBefore: skewed, notAfter: skewed + 1000 })
  t.is(adverts.offer(soon.bytes, 'gossip').verdict, 'new')
  const later = nodeAdvert(newKey(), { notBefore: skewed + 1, notAfter: skewed + 1000 })
  t.is(adverts.offer(later.bytes, 'gossip').verdict, 'not-yet')
})

test('an expired advert is gone at once, told of once, and no older one comes back', (t) => {
  const { table: adverts, clock } = table()
  const key = newKey()
  const now = clock.now()
  const newer = nodeAdvert(key, { seq: 8, notBefore: now, notAfter: now + 1000 })
  const older = nodeAdvert(key, { seq: 7, notBefore: now, notAfter: now + 60_000 })
  const expired: DirectoryEntry[] = []
  adverts.on('expire', (entry) => expired.push(entry))
  adverts.offer(newer.bytes, 'gossip')
  clock.step(1000)
  t.is(adverts.entries().length, 0)
  adverts.sweep()
  adverts.sweep()
  t.is(expired.length, 1)
  t.is(adverts.offer(older.bytes, 'gossip').verdict, 'stale')
})

test('a signer that changes its advert too often is held back, others are not', (t) => {
  const { table: adverts, clock } = table()
  const key = newKey()
  const verdicts = Array.from(
    { length: LIMITS.advertsPerSignerBurst + 2 },
    (_, i) => adverts.offer(nodeAdvert(key, { seq: 100 + i }).bytes, 'gossip').verdict
  )
  t.deepEqual(verdicts.slice(-3), ['new', 'too-often', 'too-often'])
  t.is(adverts.offer(nodeAdvert(newKey()).bytes, 'gossip').verdict, 'new')
  clock.step(60_000 / LIMITS.advertsPerSignerPerMinute)
  t.is(adverts.offer(nodeAdvert(key, { seq: 200 }).bytes, 'gossip').verdict, 'new')
})

test('a full table gives up what ends first, and nothing that a principal said itself', (t) => {
  const { table: adverts, clock } = table(4)
  const now = clock.now()
  const advert = (lifetime: number) => nodeAdvert(newKey(), { notBefore: now, notAfter: now + lifetime })
  const [own, direct, short, long] = [advert(1000), advert(2000), advert(3000), advert(4000)]
  adverts.offer(own.bytes, 'own')
  adverts.offer(direct.bytes, 'direct')
  adverts.offer(short.bytes, 'gossip')
  adverts.offer(long.bytes, 'pull')
  const ids = (): string[] => adverts.entries().map(({ advert }) => advert.id)
  const more = [advert(5000), advert(6000)]
  for (const { bytes } of more) t.is(adverts.offer(bytes, 'gossip').verdict, 'new')
  t.deepEqual(ids().sort(), [own.id, direct.id, ...more.map(({ id }) => id)].sort())
  for (let i = 0; i < 20; i++) adverts.offer(advert(7000 + i).bytes, 'direct')
  t.is(adverts.entries().length, 4)
  t.is(adverts.offer(advert(9000).bytes, 'gossip').verdict, 'full')
  t.true(ids().includes(own.id))
})

test('a witnessed advert bars older ones without being listed', (t) => {
  const { table: adverts } = table()
  const key = newKey()
  const older = nodeAdvert(key, { seq: 5 })
  const newer = nodeAdvert(key, { seq: 6 })
  t.is(adverts.witness(newer.bytes).verdict, 'new')
  t.is(adverts.entries().length, 0)
  t.is(adverts.witness(older.bytes).verdict, 'stale')
  t.is(adverts.offer(older.bytes, 'gossip').verdict, 'stale')
  t.true(adverts.lacks(advertKey(key.principal, 'node'), 6))
  t.is(adverts.offer(newer.bytes, 'gossip').verdict, 'new')
  t.false(adverts.lacks(advertKey(key.principal, 'node'), 6))
})

test('a witnessed advert is still news to a table that has an older one', (t) => {
  const { table: adverts } = table()
  const key = newKey()
  const newer = nodeAdvert(key, { seq: 6 })
  adverts.offer(nodeAdvert(key, { seq: 5 }).bytes, 'gossip')
  t.is(adverts.witness(newer.bytes).verdict, 'new')
  t.true(adverts.lacks(advertKey(key.principal, 'node'), 6))
  t.is(adverts.offer(newer.bytes, 'dht').verdict, 'new')
})

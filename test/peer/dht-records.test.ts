import test, { type ExecutionContext } from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { AdvertTable } from '../../src/peer/advert-table.ts'
import { advertRecordRule, putAdvert, RECORD_NAMESPACE } from '../../src/peer/dht-records.ts'
import { createPeerHost, type PeerHost } from '../../src/peer/host.ts'
import { NO_RULES, type RecordRule } from '../../src/peer/overlay-rules.ts'
import { advertisementObject, type Advertisement } from '../../src/ticket/advertisement.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { connect, newKey, nodeAdvert, startPeer, until, type TestPeer } from './fixtures/network.ts'

const WITHOUT = ['gossip', 'pull'] as const

/** What a careless peer checks: the signature alone. */
const careless: RecordRule = {
  validate: (_key, value) => void advertisementObject.open(value),
  select: () => 0
}

async function startHost(t: ExecutionContext, rule: RecordRule): Promise<PeerHost> {
  const host = createPeerHost(
    { clock: systemClock, logger: silentLogger },
    { key: newKey(), listen: ['/ip4/127.0.0.1/tcp/0'], bootstrap: [], dhtMode: 'server' }
  )
  host.useRules({ ...NO_RULES, records: { [RECORD_NAMESPACE]: rule } })
  t.teardown(async () => host.stop())
  await host.start()
  return host
}

async function meet(one: PeerHost, other: PeerHost): Promise<void> {
  await one.addAddresses(other.principal, other.multiaddrs())
  await one.libp2p.dial(other.libp2p.peerId)
  for (const [host, { libp2p }] of [
    [one, other],
    [other, one]
  ] as const) {
    const { routingTable } = host.libp2p.services.dht as unknown as {
      routingTable: { find(peer: typeof libp2p.peerId): Promise<unknown> }
    }
    await until(async () => (await routingTable.find(libp2p.peerId)) !== undefined, 'in the routing table')
  }
}

async function put(host: PeerHost, advert: Signed<Advertisement>): Promise<number> {
  return putAdvert(host.dht, advert, { signal: AbortSignal.timeout(10_000) })
}

/** What a host keeps for others under the advert's key, asked as a peer asks. */
async function kept(asker: PeerHost, advert: Signed<Advertisement>): Promise<number[]> {
  const key = Buffer.from(`/${RECORD_NAMESPACE}/${advert.body.issuer}/${advert.body.role}`)
  const seqs: number[] = []
  try {
    for await (const event of asker.libp2p.services.dht.get(key, { signal: AbortSignal.timeout(10_000) })) {
      if (event.name === 'PEER_RESPONSE' && event.record !== undefined) {
        seqs.push(advertisementObject.open(event.record.value).body.seq)
      }
    }
  } catch {
    // Corrections that a peer refuses end the query; its answers are here.
  }
  return seqs
}

test.serial('an older valid record does not overwrite a newer one; without the rule it does', async (t) => {
  const owner = newKey()
  const older = nodeAdvert(owner, { seq: 1 })
  const newer = nodeAdvert(owner, { seq: 2 })
  for (const [rule, remaining] of [
    [advertRecordRule(new AdvertTable({ clock: systemClock })), 2],
    [careless, 1]
  ] as const) {
    const [keeper, first, replayer, reader] = await Promise.all([
      startHost(t, rule),
      startHost(t, careless),
      startHost(t, careless),
      startHost(t, careless)
    ])
    await meet(first, keeper)
    t.true((await put(first, newer)) > 0)
    await first.stop()
    await meet(replayer, keeper)
    await put(replayer, older)
    await replayer.stop()
    await meet(reader, keeper)
    t.deepEqual(await kept(reader, newer), [remaining])
  }
})

test.serial('forged records, and records of another key, are not kept', async (t) => {
  const [keeper, liar] = await Promise.all([
    startHost(t, advertRecordRule(new AdvertTable({ clock: systemClock }))),
    startHost(t, { validate: () => {}, select: () => 0 })
  ])
  await meet(liar, keeper)
  const good = nodeAdvert(newKey())
  const forged = Uint8Array.from(good.bytes)
  forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1
  t.is(await put(liar, { ...good, bytes: forged }), 0)
  const other = nodeAdvert(newKey())
  t.is(await put(liar, { ...good, bytes: other.bytes }), 0)
  t.is(await put(liar, good), 1)
})

test.serial('a peer that serves an old record and refuses the newer denies nobody the newer', async (t) => {
  const owner = newKey()
  const older = nodeAdvert(owner, { seq: 1 })
  const newer = nodeAdvert(owner, { seq: 2 })
  const stubborn: RecordRule = {
    validate(_key, value) {
      if (advertisementObject.open(value).body.seq !== 1) throw new Error('no')
    },
    select: () => 0
  }
  const [bad, good] = await Promise.all([
    startHost(t, stubborn),
    startHost(t, advertRecordRule(new AdvertTable({ clock: systemClock })))
  ])
  const writer = await startHost(t, careless)
  await meet(writer, bad)
  t.is(await put(writer, older), 1)
  await meet(writer, good)
  t.is(await put(writer, newer), 1)
  await writer.stop()
  const seeker: TestPeer = await startPeer(t, { without: WITHOUT })
  await meet(seeker.host, bad)
  await meet(seeker.host, good)
  const found = await seeker.directory.lookup(owner.principal, { role: 'node' })
  t.is(found?.advert.body.seq, 2)
  // Asked for the best of all, kad-dht itself fails.
  const rule = advertRecordRule(new AdvertTable({ clock: systemClock }))
  const reader = await startHost(t, {
    validate: (key, value) => careless.validate(key, value),
    select: (key, values) => rule.select(key, values)
  })
  await meet(reader, bad)
  await meet(reader, good)
  const key = Buffer.from(`/${RECORD_NAMESPACE}/${owner.principal}/node`)
  const { dht } = reader.libp2p.services
  const values = (async () => {
    for await (const event of dht.get(key, { signal: AbortSignal.timeout(10_000) })) {
      if (event.name === 'VALUE') return event.value
    }
    return undefined
  })()
  await t.throwsAsync(values, { message: 'Could not send correction' })
})

test.serial('lookups end with their signal when no peer answers', async (t) => {
  const alone = await startPeer(t, { without: WITHOUT })
  const signal = AbortSignal.timeout(300)
  await t.throwsAsync(alone.directory.lookup(newKey().principal, { signal }), { name: 'TimeoutError' })
  t.deepEqual(await alone.directory.findAgents({ signal: AbortSignal.timeout(300) }).catch(() => []), [])
})

test.serial('a peer that was not added to the routing table at once is added later', async (t) => {
  const [one, other] = await Promise.all([
    startPeer(t, { without: WITHOUT }),
    startPeer(t, { without: WITHOUT })
  ])
  const dht = one.host.libp2p.services.dht as unknown as { routingTable: { size: number } }
  // As when the ping of a new contact times out on a busy machine.
  const { ping } = one.host.libp2p.services
  const answered = ping.ping.bind(ping)
  ping.ping = async () => Promise.reject(new Error('timed out'))
  await connect(one, other)
  await systemClock.sleep(500)
  t.is(dht.routingTable.size, 0)
  ping.ping = answered
  await until(() => dht.routingTable.size > 0, 'added')
  t.pass()
})

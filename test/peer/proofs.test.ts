import test from 'ava'
import { TopicValidatorResult } from '@libp2p/gossipsub'
import { LIMITS } from '../../src/base/limits.ts'
import { PROOFS_TOPIC } from '../../src/peer/topics.ts'
import { directoryProtocol } from '../../src/protocol/directory-protocol.ts'
import { encodeCbor } from '../../src/wire/cbor.ts'
import { payloadId } from '../../src/wire/envelope.ts'
import { fraud, overIssuing, proofOf } from '../ticket/frauds.ts'
import { connect, startPeer, until, type TestPeer } from './fixtures/network.ts'

const nameOf = (bytes: Uint8Array): string => payloadId(bytes)
const knows = ({ directory }: TestPeer, principal: string): boolean =>
  directory.proofs.has(principal).length > 0

test.serial('by gossip alone a proof reaches everybody, nodes that gather no adverts too', async (t) => {
  const without = ['pull', 'dht'] as const
  const [finder, between, far] = await Promise.all([
    startPeer(t, { without }),
    startPeer(t, { without }),
    startPeer(t, { without })
  ])
  await connect(finder, between)
  await connect(between, far)
  const { pubsub } = finder.host.libp2p.services
  await until(() => pubsub.getSubscribers(PROOFS_TOPIC).length > 0, 'somebody listens')
  const told: string[] = []
  far.directory.proofs.on('new', ({ finding }) => void told.push(finding.accused))
  await until(async () => {
    // One that was sent before the streams were open is lost, and the same again would pass for seen already.
    await pubsub.publish(PROOFS_TOPIC, fraud({ now: Date.now() }).bytes)
    return told.length > 0
  }, 'heard of')
  const [accused = ''] = told
  t.true(knows(far, accused))
  t.true(knows(between, accused))
})

test.serial('gossip that proves nothing is not forwarded', async (t) => {
  const without = ['pull', 'dht'] as const
  const [liar, between, far] = await Promise.all([
    startPeer(t, { without }),
    startPeer(t, { without }),
    startPeer(t, { without })
  ])
  await connect(liar, between)
  await connect(between, far)
  const { pubsub } = liar.host.libp2p.services
  const reached: string[] = []
  const { topicValidators } = far.host.libp2p.services.pubsub
  topicValidators.set(PROOFS_TOPIC, (_from, { data }) => {
    reached.push(nameOf(data))
    return TopicValidatorResult.Ignore
  })
  /** Until one arrives: those sent before the streams were open are lost. */
  const send = async (make: () => Uint8Array): Promise<void> => {
    const sent: string[] = []
    await until(async () => {
      const bytes = make()
      sent.push(nameOf(bytes))
      await pubsub.publish(PROOFS_TOPIC, bytes)
      return sent.some((name) => reached.includes(name))
    }, 'it arrives')
  }
  const good = (): Uint8Array => fraud({ now: Date.now() }).bytes
  const nothing = (): Uint8Array => {
    const evidence = fraud().finding.evidence.map(({ bytes }) => bytes)
    return encodeCbor({ proof: fraud({ now: Date.now() }).proof.bytes, evidence })
  }
  await send(good)
  const bad = nothing()
  await pubsub.publish(PROOFS_TOPIC, bad)
  await send(good)
  t.false(reached.includes(nameOf(bad)), 'it was sent before the last one')
  // Where nobody looks, it would be.
  between.host.libp2p.services.pubsub.topicValidators.set(PROOFS_TOPIC, () => TopicValidatorResult.Accept)
  await t.notThrowsAsync(send(nothing))
})

test.serial('a proof too large for gossip is given to peers at hand, and late ones fetch it', async (t) => {
  const without = ['gossip', 'dht'] as const
  const [finder, near] = await Promise.all([startPeer(t, { without }), startPeer(t, { without })])
  await connect(finder, near)
  const bundle = proofOf(overIssuing(), { now: Date.now() })
  t.true(bundle.bytes.length > LIMITS.gossipedProofBytesMax)
  await until(async () => {
    const { keys } = await near.host.caller(directoryProtocol, finder.host.principal)('proofs', {})
    return keys.length === 0
  }, 'the first exchange is over')
  await finder.directory.proofs.publish(bundle)
  await until(() => knows(near, bundle.finding.accused), 'given')
  const late = await startPeer(t, { without })
  await connect(late, near)
  await until(() => knows(late, bundle.finding.accused), 'fetched')
  t.deepEqual(
    late.directory.proofs.all().map(({ finding }) => finding.kind),
    ['over-issued']
  )
})

test.serial('who gives or offers a proof of nothing is told so, and it is not taken', async (t) => {
  const without = ['gossip', 'dht'] as const
  const [liar, honest] = await Promise.all([startPeer(t, { without }), startPeer(t, { without })])
  await liar.host.addAddresses(honest.host.principal, honest.host.multiaddrs())
  const call = liar.host.caller(directoryProtocol, honest.host.principal)
  const evidence = fraud().finding.evidence.map(({ bytes }) => bytes)
  const bad = encodeCbor({ proof: fraud({ now: Date.now() }).proof.bytes, evidence })
  await t.throwsAsync(call('giveProof', { bundle: bad }), { code: 'PROOF_INVALID' })
  t.deepEqual(honest.directory.proofs.all(), [])
  const good = fraud({ now: Date.now() })
  t.deepEqual(await call('giveProof', { bundle: good.bytes }), { accepted: true })
  t.deepEqual(await call('giveProof', { bundle: good.bytes }), { accepted: false })
  const fetched: Uint8Array[] = []
  const { keys } = await call('proofs', {})
  await call('getProofs', { keys }, { onItem: ({ bundle }) => void fetched.push(bundle) })
  t.deepEqual(
    fetched.map((bytes) => Buffer.from(bytes)),
    [Buffer.from(good.bytes)]
  )
})

import test, { type ExecutionContext } from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { SlicenetError } from '../../src/base/errors.ts'
import { systemRandom } from '../../src/base/random.ts'
import { contactsOf } from '../../src/peer/contacts.ts'
import { pingPeer, type PathView } from '../../src/peer/pinging.ts'
import { DEFAULT_REACH } from '../../src/peer/reach.ts'
import { startPeer, stopPeer, until, type TestPeer } from './fixtures/network.ts'

interface Hidden {
  readonly relay: TestPeer
  /** Listens nowhere, and has a slot at the relay. */
  readonly hidden: TestPeer
}

async function behindRelay(t: ExecutionContext): Promise<Hidden> {
  const relay = await startPeer(t)
  const hidden = await startPeer(t, { listen: [], bootstrap: relay.host.multiaddrs() })
  await until(() => hidden.host.multiaddrs().length > 0, 'a slot at the relay')
  return { relay, hidden }
}

async function pinged(from: TestPeer, to: TestPeer, count = 3) {
  const paths: PathView[] = []
  const lost: unknown[] = []
  await from.host.addAddresses(to.host.principal, to.host.multiaddrs())
  const components = { libp2p: () => from.host.libp2p, clock: systemClock, random: systemRandom }
  const report = await pingPeer(components, to.host.principal, {
    count,
    intervalMs: 1,
    signal: new AbortController().signal,
    onPath: async (path) => void paths.push(path),
    onPing: async (rtt) => void (rtt === undefined && lost.push(rtt))
  })
  return { report, paths: paths.map(({ relayed }) => relayed), lost: lost.length }
}

test.serial('a ping says that a peer is reached directly, at which address and how fast', async (t) => {
  const [one, other] = await Promise.all([startPeer(t), startPeer(t)])
  const { report, paths } = await pinged(one, other)
  t.like(report, { relayed: false, sent: 3, address: other.host.multiaddrs()[0] })
  t.is(report.rttMicros.length, 3)
  t.true(report.rttMicros.every((rtt) => Number.isInteger(rtt) && rtt > 0))
  t.deepEqual(paths, [false])
})

test.serial('a ping says that a peer is reached through a relay, when neither can be dialed', async (t) => {
  const { hidden } = await behindRelay(t)
  const other = await startPeer(t, { listen: [], reach: { ...DEFAULT_REACH, reserve: 'never' } })
  const { report, paths } = await pinged(other, hidden)
  t.like(report, { relayed: true, sent: 3, address: hidden.host.multiaddrs()[0] })
  t.deepEqual(paths, [true])
  const contacts = contactsOf(other.host.libp2p)
  t.deepEqual(
    contacts.map(({ relayed, direction }) => [relayed, direction]),
    [
      [false, 'outbound'],
      [true, 'outbound']
    ],
    'the relay itself is reached directly'
  )
})

test.serial('a ping waits for a relayed connection to become direct', async (t) => {
  const { hidden } = await behindRelay(t)
  const reachable = await startPeer(t)
  const { report } = await pinged(reachable, hidden)
  t.false(report.relayed)
  t.is(report.rttMicros.length, 3)
})

test.serial('a peer that is gone is unreachable, with its relay or without', async (t) => {
  const { relay, hidden } = await behindRelay(t)
  const [other, stranger] = await Promise.all([startPeer(t), startPeer(t)])
  const addresses = [...hidden.host.multiaddrs(), ...stranger.host.multiaddrs()]
  await Promise.all([stopPeer(hidden), stopPeer(stranger)])
  for (const { key } of [hidden, stranger]) {
    const gone = { ...other, host: { principal: key.principal, multiaddrs: () => addresses } } as TestPeer
    const error = await t.throwsAsync(pinged(other, gone), { instanceOf: SlicenetError })
    t.is(error.code, 'PEER_UNREACHABLE')
  }
  t.true(relay.host.multiaddrs().length > 0)
})

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { systemRandom } from '../../src/base/random.ts'
import { ComposedPeer } from '../../src/daemon/compose.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { measureProtocol } from '../../src/protocol/measure-protocol.ts'
import { MemoryStore } from '../../src/store/memory-store.ts'
import type { Store } from '../../src/store/store.ts'
import { isPlaced } from '../../src/ticket/coordinate.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { makeKey } from '../ticket/fixtures.ts'
import { until } from '../peer/fixtures/network.ts'

interface PeerInit {
  readonly key?: SigningKey
  readonly store?: Store
  readonly lines?: readonly string[]
  readonly join?: ComposedPeer
  readonly shortLived?: boolean
}

async function startPeer(t: ExecutionContext, init: PeerInit = {}): Promise<ComposedPeer> {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-measure-'))
  t.teardown(async () => rm(directory, { recursive: true, force: true }))
  const bootstrap = init.join?.parts.host.multiaddrs() ?? []
  const lines = [
    'name: test',
    'listen: [/ip4/127.0.0.1/tcp/0]',
    `bootstrap: [${bootstrap.join(', ')}]`,
    ...(init.lines ?? ['measure: { every: 1s }'])
  ]
  const peer = new ComposedPeer(
    {
      key: init.key ?? makeKey(),
      store: init.store ?? new MemoryStore(),
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger
    },
    {
      config: parseConfig(lines.join('\n'), 'test'),
      stateDirectory: directory,
      imagesDirectory: directory,
      shortLived: init.shortLived ?? false
    }
  )
  t.teardown(async () => peer.stop())
  await peer.start()
  return peer
}

test('peers find their places, each keeps its own over a restart', async (t) => {
  const [key, store] = [makeKey(), new MemoryStore()]
  const one = await startPeer(t)
  const other = await startPeer(t, { key, store, join: one })
  await until(() => [one, other].every(({ parts }) => parts.measuring?.coordinate() !== undefined), 'placed')
  const { measuring } = other.parts
  await other.stop()
  const again = await startPeer(t, { key, store, lines: [] })
  const [before, after] = [measuring?.coordinate(), again.parts.measuring?.coordinate()]
  t.deepEqual(after?.vector, before?.vector)
  t.is((await startPeer(t)).parts.measuring?.coordinate(), undefined, 'another knows nothing at its start')
})

test('a researcher’s peer says where it is, and takes no measurement of an uplink as an agent does', async (t) => {
  const one = await startPeer(t, { lines: ['agent: {}'] })
  const other = await startPeer(t, { join: one })
  const call = (from: ComposedPeer, to: ComposedPeer) =>
    from.parts.host.caller(measureProtocol, to.parts.host.principal)
  await until(async () => isPlaced((await call(one, other)('coordinate', {})).coordinate), 'placed')
  async function* bytes(): AsyncGenerator<{ bytes: Uint8Array }> {
    yield { bytes: new Uint8Array(1000) }
  }
  await t.throwsAsync(call(one, other)('sink', {}, { input: bytes() }), { code: 'DENIED' })
  t.is((await call(other, one)('sink', {}, { input: bytes() })).bytes, 1000)
})

test('measuring can be turned off, and a peer of one command measures nothing', async (t) => {
  const off = await startPeer(t, { lines: ['measure: { place: false }'] })
  t.is(off.parts.measuring, undefined)
  const brief = await startPeer(t, { shortLived: true, join: off })
  t.is(brief.parts.measuring, undefined)
  const call = brief.parts.host.caller(measureProtocol, off.parts.host.principal)
  await t.throwsAsync(call('coordinate', {}), { code: 'PROTOCOL_ERROR' })
})

test('a configuration that measures without pause is refused', (t) => {
  for (const line of ['every: 100ms', 'uplinkEvery: 1s', 'uplinkEvery: 100d', 'often: true']) {
    t.throws(() => parseConfig(`name: test\nmeasure: { ${line} }`, 'test'), { code: 'CONFIG_INVALID' })
  }
})

import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import test from 'ava'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Logger } from '../../src/base/log.ts'
import { silentLogger } from '../../src/base/log.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { followConnections, guardOf, parseConnectionPolicy } from '../../src/daemon/connections-file.ts'
import { FILE_POLL_MS } from '../../src/daemon/followed-file.ts'
import type { ConnectionGate } from '../../src/peer/connection-gate.ts'
import type { ConnectionPolicy } from '../../src/peer/connection-policy.ts'
import { ManualClock, settle } from '../base/manual-clock.ts'
import { until } from '../peer/fixtures/network.ts'
import { makeKey } from '../ticket/fixtures.ts'

const { principal } = makeKey()
const NONE = { principals: [], organisations: [], addresses: [] }

test('a configuration names whom to deny and allow, and a file beside it', (t) => {
  const yaml = `
name: one
connections:
  deny: { principals: [${principal}], addresses: [192.0.2.0/24, "2001:db8::/32"] }
  allow: { organisations: [${principal}] }
  file: connections.yaml
`
  t.deepEqual(parseConfig(yaml, '/etc/slicenet/slicenet.yaml').connections, {
    deny: { ...NONE, principals: [principal], addresses: ['192.0.2.0/24', '2001:db8::/32'] },
    allow: { ...NONE, organisations: [principal] },
    file: '/etc/slicenet/connections.yaml'
  })
  const refused = (section: string): void => {
    t.throws(
      () => parseConfig(`name: one\nconnections: ${section}`, 'x'),
      { code: 'CONFIG_INVALID' },
      section
    )
  }
  refused('{ deny: { addresses: [192.0.2.0/33] } }')
  refused('{ deny: { principals: [alice] } }')
  refused('{ denied: {} }')
  refused('{ allow: everybody }')
  t.is(parseConfig('name: one', 'x').connections, undefined)
})

test('without the section there is no gate, and no cost', (t) => {
  const components = { clock: new ManualClock(), logger: silentLogger }
  t.is(guardOf(components, parseConfig('name: one', 'x')), undefined)
  const guard = guardOf(components, parseConfig('name: one\nconnections: { allow: {} }', 'x'))
  t.is(guard?.parts.length, 0)
})

test('whom the rest of the configuration names is let in without being listed', (t) => {
  const [supplier, stranger] = [makeKey().principal, makeKey().principal]
  const node = `{ node: ${stranger}, cpu: 1, memory: 1GiB, disk: 1GiB, egress: 1Mbps, egressPerDay: 1GiB, pids: 9 }`
  const yaml = `
name: one
connections: { allow: { principals: [${principal}] } }
agent: { suppliers: [{ address: /ip4/192.0.2.1/tcp/1/p2p/${supplier}, nodes: [${node}] }] }
`
  const guard = guardOf({ clock: new ManualClock(), logger: silentLogger }, parseConfig(yaml, 'x'))
  const refuses = (peer: string): unknown =>
    guard?.gate.gater().denyInboundEncryptedConnection?.(peerIdFromString(peer), {
      remoteAddr: multiaddr('/ip4/192.0.2.1/tcp/1')
    } as never)
  t.deepEqual([principal, supplier, stranger].map(refuses), [false, false, true])
})

test('a file of connections is taken again when it changes, and bad content keeps what was', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-connections-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const file = join(directory, 'connections.yaml')
  const clock = new ManualClock()
  const taken: ConnectionPolicy[] = []
  const warnings: string[] = []
  const logger: Logger = { ...silentLogger, warn: (message) => void warnings.push(message) }
  const gate = {
    usePolicy: (policy: ConnectionPolicy) => void taken.push(policy)
  } as unknown as ConnectionGate
  const policy = { deny: { ...NONE, addresses: ['192.0.2.0/24'] } }
  const following = followConnections({ clock, logger, gate }, { file, policy })
  await t.throwsAsync(following.start(), { code: 'CONFIG_INVALID' }, 'nobody begins without it')
  await writeFile(file, `deny: { principals: [${principal}] }\n`)
  await following.start()
  t.teardown(() => following.stop())
  t.deepEqual(taken, [{ deny: { ...NONE, principals: [principal], addresses: ['192.0.2.0/24'] } }])
  const change = async (text: string, done: () => boolean): Promise<void> => {
    await writeFile(file, text)
    await until(async () => {
      await clock.advance(FILE_POLL_MS)
      await settle()
      return done()
    }, 'looked at')
  }
  await change(`deny: { principals: [alice] }\n`, () => warnings.length === 1)
  await change(`allow: [`, () => warnings.length === 2)
  t.is(taken.length, 1)
  t.true(warnings.every((message) => message.includes('the connections before stays')))
  await change(`allow: { organisations: [${principal}] }\n`, () => taken.length === 2)
  t.deepEqual(taken[1], { ...policy, allow: { ...NONE, organisations: [principal] } })
})

test('what is wrong with a file of connections is named', (t) => {
  t.throws(() => parseConnectionPolicy('deny: { addresses: [x] }', 'file.yaml'), {
    code: 'CONFIG_INVALID',
    message: /^file\.yaml: deny\.addresses\.0: expected a range/
  })
  t.deepEqual(parseConnectionPolicy('', 'file.yaml'), {})
})

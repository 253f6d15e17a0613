import test from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import { parseConfig, withBootstrap } from '../../src/daemon/config.ts'
import type { DaemonInit } from '../../src/daemon/daemon.ts'
import { serveControl } from '../daemon/control-fixture.ts'
import { holderKey, NOW, nodeKey } from '../daemon/signed-objects.ts'
import { until } from '../peer/fixtures/network.ts'
import { cli } from './cli-fixture.ts'
import { account, codeOf } from './peers.ts'

const DIRECT = '/ip4/198.18.1.2/tcp/4001'
const RELAYED = `/ip4/198.18.2.2/tcp/4001/p2p/${holderKey.principal}/p2p-circuit/p2p/${nodeKey.principal}`

const fakePing = {
  async ping(_params: unknown, { emit }: { emit: (item: never) => Promise<void> }) {
    const items = [
      { event: 'path', relayed: true, address: RELAYED },
      { event: 'path', relayed: false, address: DIRECT },
      { event: 'ping', rttMicros: 1500 },
      { event: 'ping' },
      { event: 'ping', rttMicros: 500 },
      { event: 'ping', rttMicros: 12_345 }
    ]
    for (const item of items) await emit(item as never)
    const { principal } = nodeKey
    return {
      principal,
      name: 'n\u001b[2J',
      relayed: false,
      address: DIRECT,
      sent: 4,
      rttMicros: [1500, 500, 12_345]
    }
  }
}

test('a ping tells each path and time as it comes, and sums up', async (t) => {
  await using control = await serveControl(fakePing)
  const { exitCode, stdout } = await cli(['ping', 'node1', '--count', '4'], { home: control.directory })
  t.is(exitCode, 0)
  const [relayed, direct, ...rest] = stdout.split('\n')
  t.is(relayed, `relayed: ${RELAYED}`)
  t.regex(direct ?? '', new RegExp(`^direct after \\d+\\.\\d s: ${DIRECT}$`))
  t.deepEqual(rest, [
    'rtt 1.50 ms',
    'no answer',
    'rtt 0.50 ms',
    'rtt 12.3 ms',
    'n\\u001b[2J: direct, 3 of 4 answered; min/median/max 0.50 ms / 1.50 ms / 12.3 ms',
    ''
  ])
})

test('for programs a ping is one document', async (t) => {
  await using control = await serveControl(fakePing)
  const { exitCode, json } = await cli(['ping', 'node1', '--json'], { home: control.directory })
  t.is(exitCode, 0)
  t.like(json(), {
    schema: 1,
    ping: { relayed: false, sent: 4, minMicros: 500, medianMicros: 1500, maxMicros: 12_345 }
  })
})

test('a peer that is not reached is exit code 6, and a wrong count 2', async (t) => {
  await using control = await serveControl({
    async ping() {
      throw new SlicenetError('PEER_UNREACHABLE', 'cannot reach it')
    }
  })
  const options = { home: control.directory }
  t.is((await cli(['ping', 'node1'], options)).exitCode, 6)
  for (const count of ['0', '1001', 'many']) {
    t.is((await cli(['ping', 'node1', '--count', count], options)).exitCode, 2)
  }
})

test('peers are told with who dialed, how they are reached, and their roles', async (t) => {
  const shared = { relayed: false, address: DIRECT, connectedAt: NOW }
  await using control = await serveControl({
    peers: async () => ({
      peers: [
        { principal: nodeKey.principal, name: 'node1', roles: ['node'], direction: 'inbound', ...shared },
        {
          principal: holderKey.principal,
          roles: [],
          direction: 'outbound',
          ...shared,
          relayed: true,
          address: RELAYED
        }
      ]
    })
  })
  const { stdout } = await cli(['peers'], { home: control.directory })
  const lines = stdout.split('\n')
  t.regex(lines[0] ?? '', /^PEER +NAME +ROLES +DIALED +PATH +SINCE +ADDRESS$/)
  t.regex(lines[1] ?? '', /^12D3KooW\w+ +node1 +node +in +direct +20\S+Z +\/ip4/)
  t.regex(lines[2] ?? '', /^12D3KooW\w+ +- +- +out +relayed +20\S+Z +\/ip4\S+p2p-circuit/)
})

test('real daemons are pinged by principal, its beginning, and address', async (t) => {
  const one = await account(t)
  const other = await account(t)
  await one.daemon()
  const { status } = (await one.run('status')).json() as { status: { multiaddrs: string[] } }
  const [address = ''] = status.multiaddrs
  await other.daemon()
  t.is((await other.run('ping', one.principal.slice(0, 12))).exitCode, 1, 'nobody of that name is known yet')
  for (const peer of [address, one.principal, one.principal.slice(0, 20)]) {
    const pinged = await other.run('ping', peer, '--count', '2')
    t.is(pinged.exitCode, 0, pinged.stdout)
    t.like(pinged.json(), { ping: { principal: one.principal, relayed: false, sent: 2, address } })
  }
  t.like((await one.run('peers')).json(), {
    peers: [{ principal: other.principal, direction: 'inbound', relayed: false, roles: [] }]
  })
  t.is(codeOf(await other.run('ping', other.principal)), 'USAGE')
  t.is(codeOf(await other.run('ping', '/ip4/127.0.0.1/tcp/4001')), 'USAGE')
  const nobody = await other.run('ping', `/ip4/127.0.0.1/tcp/1/p2p/${nodeKey.principal}`)
  t.is(codeOf(nobody), 'PEER_UNREACHABLE')
  t.is(nobody.exitCode, 6)
})

test('a daemon joins by the peers of the command line as well as its configuration', async (t) => {
  const one = await account(t)
  await one.daemon()
  const { status } = (await one.run('status')).json() as { status: { multiaddrs: string[] } }
  const configured = `/ip4/127.0.0.1/tcp/1/p2p/${nodeKey.principal}`
  const asked: (readonly string[])[] = []
  const runDaemon = async (init: DaemonInit): Promise<void> => void asked.push(init.bootstrap ?? [])
  const words = [
    'daemon',
    ...[configured, ...status.multiaddrs].flatMap((address) => ['--bootstrap', address])
  ]
  t.is((await cli(words, { home: one.home, services: { runDaemon } })).exitCode, 0)
  t.deepEqual(asked, [[configured, ...status.multiaddrs]])
  const other = await account(t)
  await other.daemon(status.multiaddrs)
  await until(async () => {
    const { peers } = (await other.run('peers')).json() as { peers: { principal: string }[] }
    return peers.some(({ principal }) => principal === one.principal)
  }, 'joined')
  const config = parseConfig('name: test', 'slicenet.yaml')
  await t.throwsAsync(withBootstrap(config, ['/ip4/127.0.0.1/tcp/1']), { code: 'CONFIG_INVALID' })
})

/**
 * Peers of two organisations on loopback ports, whole but for the monitor: the agent of one sells to that of the other by
 * policy files, and a researcher of the other has a slice on a node that names the first agent only.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { systemRandom } from '../../src/base/random.ts'
import { ComposedPeer, type PeerParts } from '../../src/daemon/compose.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { Memberships } from '../../src/daemon/memberships.ts'
import { parseSliceFile } from '../../src/service/slice-file.ts'
import { MemoryStore } from '../../src/store/memory-store.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { until } from '../peer/fixtures/network.ts'
import { startOverlayNode } from '../sdk/fixtures/overlay-node.ts'
import { makeKey } from '../ticket/fixtures.ts'
import { vouch } from '../ticket/memberships.ts'

const organisation = makeKey()

async function scratch(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-federation-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return directory
}

/** A peer that is vouched for, with `agent` as its section of that name. */
async function startPeer(
  t: ExecutionContext,
  key: SigningKey,
  bootstrap: string,
  agent?: Readonly<Record<string, unknown>>
): Promise<PeerParts> {
  const stateDirectory = await scratch(t)
  const config = parseConfig(
    JSON.stringify({
      name: 'peer',
      listen: ['/ip4/127.0.0.1/tcp/0'],
      bootstrap: [bootstrap],
      advertEvery: '1s',
      ...(agent === undefined ? {} : { agent })
    }),
    'test'
  )
  const now = Date.now()
  const term = { notBefore: now - 60_000, notAfter: now + 3_600_000 }
  const memberships = new Memberships(
    { clock: systemClock, logger: silentLogger },
    { stateDirectory, member: key.principal }
  )
  await memberships.keep(vouch(organisation, key.principal, term).bytes)
  const peer = new ComposedPeer(
    { key, store: new MemoryStore(), clock: systemClock, random: systemRandom, logger: silentLogger },
    { config, stateDirectory, imagesDirectory: join(stateDirectory, 'images'), shortLived: false }
  )
  await peer.start()
  t.teardown(() => peer.stop())
  return peer.parts
}

async function policyFile(t: ExecutionContext, text: string): Promise<string> {
  const file = join(await scratch(t), 'policy.yaml')
  await writeFile(file, text)
  return file
}

const sells = `
rules:
  - name: partner
    match: { organisations: [${organisation.principal}] }
    grants: wholesale
    perOrganisation: { tickets: 1 }
default: { access: deny }
`
const grants = (tickets: number): string => `
rules:
  - name: ours
    match: { organisations: [${organisation.principal}] }
    perPrincipal: { tickets: ${tickets} }
default: { access: deny }
`

function slice(name: string) {
  const { description } = parseSliceFile(`name: ${name}\nimage: debian\nprogram: { argv: [mesh] }\n`)
  return { ...description, files: [] }
}

test.serial('a researcher has a slice of another organisation’s node through its own agent', async (t) => {
  const node = await startOverlayNode({
    node: { accepts: { organisations: [organisation.principal] } },
    agent: { policy: await policyFile(t, sells) }
  })
  t.teardown(() => node.stop())
  await until(() => node.delegations() === 1, 'the seller has its delegation')
  const policy = await policyFile(t, grants(1))
  const key = makeKey()
  const wanted = {
    node: node.principal,
    cpu: '500m',
    memory: '256MiB',
    disk: '256MiB',
    egress: '5Mbps',
    egressMax: '50Mbps',
    cpuMax: '2',
    egressPerDay: '4GiB',
    pids: 256
  }
  const suppliers = [{ address: node.address, nodes: [wanted] }]
  const agent = await startPeer(t, key, node.address, { policy, suppliers })
  await until(() => agent.agent?.delegations === 1, 'the agent bought its share')
  const { services, directory, broker } = await startPeer(t, makeKey(), node.address)
  await until(() => {
    const body = directory.get(key.principal, 'agent')?.advert.body
    return body?.role === 'agent' && body.nodes === 1 && body.regions.includes('eu')
  }, 'the agent is known to serve a node')
  await until(() => directory.get(node.principal, 'node') !== undefined, 'the node is known')
  t.deepEqual(
    broker.agents().map(({ accepts }) => accepts?.organisations),
    broker.agents().map(({ issuer }) => (issuer === key.principal ? [organisation.principal] : []))
  )
  const view = await services.create(slice('one'))
  t.is(view.state, 'active')
  t.is(node.leases(), 1)
  t.deepEqual(
    agent.agent?.tickets().map(({ slice: of }) => of),
    ['one']
  )
  const error = await t.throwsAsync(services.create(slice('two')))
  t.regex(JSON.stringify(error), /quota of tickets per principal is 1.*rule .*ours/)
  // The agent is told otherwise while it runs.
  await writeFile(policy, grants(2))
  const hasAnother = async (): Promise<boolean> =>
    services.create(slice('two')).then(
      () => true,
      () => false
    )
  await until(hasAnother, 'the larger quota is in force')
  t.is(node.leases(), 2)
  await Promise.all(['one', 'two'].map((name) => services.delete(name)))
})

/** What peers of a role do over a directory, as `compose.ts` wires it, but for leases: adverts and listening. */
import type { Clock } from '../../src/base/clock.ts'
import type { Startable } from '../../src/base/lifecycle.ts'
import { silentLogger } from '../../src/base/log.ts'
import { AgentAdvertising } from '../../src/daemon/agent-advertising.ts'
import { listening, ownPlaces } from '../../src/daemon/listening.ts'
import { ResourceMonitor } from '../../src/node/resource-monitor.ts'
import type { Directory } from '../../src/peer/directory.ts'
import { organisationTopic, regionTopic } from '../../src/peer/topics.ts'
import type { Advertisement } from '../../src/ticket/advertisement.ts'
import type { Principal, SigningKey } from '../../src/ticket/principal.ts'

export type Role = 'node' | 'agent' | 'researcher'

/** As a daemon has them by default. */
export const PULL_INTERVAL_MS = 30_000
const ADVERT_INTERVAL_MS = 30_000
const ADVERT_LIFE_MS = 120_000
const RESOURCES = {
  cpuMillis: 4000,
  cpuMillisMax: 8000,
  memoryBytes: 8_000_000_000,
  diskBytes: 100_000_000_000,
  egressBps: 100_000_000,
  egressBpsMax: 1_000_000_000,
  egressBytesPerDay: 100_000_000_000,
  pids: 4096
}

export interface RoleComponents {
  readonly key: SigningKey
  readonly clock: Clock
  readonly directory: Directory
  readonly multiaddrs: () => readonly string[]
}

export interface RoleInit {
  readonly role: Role
  readonly index: number
  readonly epoch: number
  readonly region: string
  readonly organisation: string
  /** Of a node: whom it delegates to. */
  readonly agents: readonly Principal[]
}

/** The parts of a peer of that role, to be started after its directory. */
export function partsOf(components: RoleComponents, init: RoleInit): Startable[] {
  const { role } = init
  if (role === 'node') return [monitor(components, init)]
  const { directory, key } = components
  const hearing = listening(
    { ...components, logger: silentLogger },
    role === 'researcher'
      ? { everywhere: true }
      : { everywhere: false, topic: ownPlaces(directory, key.principal) }
  )
  return role === 'researcher' ? [hearing] : [advertising(components, init), hearing]
}

function common({ index, epoch, region, organisation }: RoleInit) {
  return {
    name: `peer-${index}`,
    epoch,
    attributes: {
      region,
      organisation,
      site: `site-${index % 5}`,
      kernel: '6.1.0',
      arch: 'x64',
      os: 'linux'
    },
    intervalMs: ADVERT_INTERVAL_MS,
    lifetimeMs: ADVERT_LIFE_MS
  }
}

/** An agent holds the delegations of the nodes that say so. */
function advertising(components: RoleComponents, init: RoleInit): Startable {
  const { directory, key } = components
  const nodes = new Set<Principal>()
  const isServed = (body: Advertisement): boolean =>
    body.role === 'node' && body.agents.includes(key.principal)
  directory.on('update', ({ advert: { body } }) => {
    if (isServed(body)) nodes.add(body.issuer)
  })
  directory.on('expire', ({ advert: { body } }) => {
    if (isServed(body)) nodes.delete(body.issuer)
  })
  return new AgentAdvertising(
    { ...components, logger: silentLogger, served: () => [...nodes], more: () => ({}) },
    common(init)
  )
}

function monitor(components: RoleComponents, init: RoleInit): Startable {
  const { agents, region, organisation } = init
  const topics = [regionTopic(region), organisationTopic(organisation)]
  return new ResourceMonitor(
    {
      ...components,
      logger: silentLogger,
      manager: { free: () => RESOURCES, onChange: () => () => {} },
      images: async () => ({ debian: `sha256:${'ab'.repeat(32)}` }),
      agents: () => agents,
      delegatedPercent: () => 100,
      publish: async (advert, record) => components.directory.publish(advert, { topics, agents, record })
    },
    { ...common(init), capacity: RESOURCES }
  )
}

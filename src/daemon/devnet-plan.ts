/**
 * Who is on a devnet: agents of different organisations that every node delegates to, so that they compete; nodes in
 * two regions; brokers, where some are wanted; a researcher's peer, and that of an administrator, where one is wanted; and a
 * node and a researcher's peer behind NATs, where those are. Agents are the bootstrap peers.
 */
import { createHash } from 'node:crypto'
import { SlicenetError } from '../base/errors.ts'
import type { DevnetHost } from './devnet.ts'

export interface PlannedHost {
  readonly name: string
  readonly roles: readonly ('node' | 'agent' | 'broker')[]
  /** The NAT that it is behind, if any. */
  readonly gateway?: string
  /** The configuration file's content, once everybody's address and principal are known. */
  readonly config: (self: DevnetHost, hosts: readonly DevnetHost[]) => Record<string, unknown>
}

const PORT = 4001
const NODES_MAX = 14
const BROKERS_MAX = 4
const ID_BLOCKS = 7
const LOW_ID_BLOCKS = 4
const ADMINISTRATOR = 'administrator'
const LENT_RIGHTS = ['administrative', 'cap-net-raw']
const REGIONS = ['eu', 'us']
/** A small machine carries several nodes: each leases less than there is. */
const CAPACITY = { cpu: 1, memory: '1GiB', disk: '2GiB', pids: 4096 }

export function devnetPlan(init: {
  readonly name: string
  readonly nodes: number
  readonly agents: number
  readonly brokers: number
  readonly nat: boolean
  /** Whether there is one who may hold administrative slices. */
  readonly administrator: boolean
}): PlannedHost[] {
  if (init.nodes < 1 || init.nodes + Number(init.nat) > NODES_MAX || init.agents < 1 || init.agents > 26) {
    throw new SlicenetError('USAGE', `a devnet has 1 to ${NODES_MAX} nodes and 1 to 26 agents`)
  }
  if (init.brokers > BROKERS_MAX) {
    throw new SlicenetError('USAGE', `a devnet has at most ${BROKERS_MAX} brokers`)
  }
  const agents = Array.from({ length: init.agents }, (_item, index) =>
    plannedAgent(index, init.administrator)
  )
  const nodes = Array.from({ length: init.nodes }, (_item, index) =>
    plannedNode(init.name, index, init.agents)
  )
  const brokers = Array.from({ length: init.brokers }, (_item, index) => plannedBroker(index))
  const hidden = init.nat
    ? [
        { ...plannedNode(init.name, init.nodes, init.agents), name: 'nat-node', gateway: 'nat1' },
        { ...plannedResearcher(), name: 'nat-researcher', gateway: 'nat2' }
      ]
    : []
  const administrators = init.administrator ? [{ ...plannedResearcher(), name: ADMINISTRATOR }] : []
  return [...agents, ...nodes, ...brokers, plannedResearcher(), ...administrators, ...hidden]
}

function organisation(index: number): string {
  return `org-${String.fromCharCode('a'.charCodeAt(0) + index)}`
}

function peerAddress({ address, principal }: DevnetHost): string {
  return `/ip4/${address}/tcp/${PORT}/p2p/${principal}`
}

function agentsOf(hosts: readonly DevnetHost[]): DevnetHost[] {
  return hosts.filter(({ roles }) => roles.includes('agent'))
}

function common(self: DevnetHost, hosts: readonly DevnetHost[]): Record<string, unknown> {
  return {
    name: self.name,
    listen: [`/ip4/${self.address}/tcp/${PORT}`],
    bootstrap: agentsOf(hosts)
      .filter(({ name }) => name !== self.name)
      .map(peerAddress),
    advertEvery: '5s',
    advertLife: '60s'
  }
}

/** Slices may ask for more than the usual share of an uplink, to see what that does. */
const SHARES = { egressShare: 8 }

function plannedAgent(index: number, isLending: boolean): PlannedHost {
  return {
    name: `agent-${String.fromCharCode('a'.charCodeAt(0) + index)}`,
    roles: ['agent'],
    config: (self, hosts) => ({
      ...common(self, hosts),
      organisation: organisation(index),
      region: REGIONS[index % REGIONS.length],
      agent: {
        holders: 'anyone',
        longestTerm: '1d',
        shaping: SHARES,
        ...(isLending ? { rights: LENT_RIGHTS } : {})
      }
    })
  }
}

function plannedNode(devnet: string, index: number, agents: number): PlannedHost {
  return {
    name: `node${index + 1}`,
    roles: ['node'],
    config: (self, hosts) => ({
      ...common(self, hosts),
      organisation: organisation(index % agents),
      region: REGIONS[index % REGIONS.length],
      site: `site${index + 1}`,
      node: {
        shortName: `${devnet}-${self.name}`,
        index: idWindows(devnet, hosts) + index,
        uplink: { device: 'up0', rate: '100Mbps', own: '10Mbps' },
        shaping: SHARES,
        allowedPrivateRanges: ['198.18.0.0/15'],
        capacity: CAPACITY,
        volume: '4GiB',
        ...lending(hosts)
      }
    })
  }
}

/** The node's agents, and where there is an administrator, what it leases to that one. */
function lending(hosts: readonly DevnetHost[]): Record<string, unknown> {
  const administrator = hosts.find(({ name }) => name === ADMINISTRATOR)
  const agents = agentsOf(hosts).map((agent) => ({ address: peerAddress(agent) }))
  if (administrator === undefined) return { agents }
  return {
    agents: agents.map((agent) => ({ ...agent, rights: LENT_RIGHTS })),
    administrative: { holders: [administrator.principal], capabilities: ['cap-net-raw'] }
  }
}

/**
 * Where a devnet's ranges of user ids begin, so that two devnets on one machine are unlikely to share them; low enough for
 * administrative slices where there is an administrator.
 */
function idWindows(devnet: string, hosts: readonly DevnetHost[]): number {
  const [byte = 0] = createHash('sha256').update(devnet).digest()
  const isLending = hosts.some(({ name }) => name === ADMINISTRATOR)
  return NODES_MAX * (byte % (isLending ? LOW_ID_BLOCKS : ID_BLOCKS))
}

function plannedBroker(index: number): PlannedHost {
  return {
    name: `broker${index + 1}`,
    roles: ['broker'],
    config: (self, hosts) => ({ ...common(self, hosts), broker: {} })
  }
}

function plannedResearcher(): PlannedHost {
  return {
    name: 'researcher',
    roles: [],
    config: (self, hosts) => ({ ...common(self, hosts), organisation: organisation(0) })
  }
}

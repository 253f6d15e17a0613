/** The parts of a simulated overlay: which hosts there are, and by which means they reach one another. */
import type { Agent } from '../../src/agent/agent.ts'
import type { NodeManager } from '../../src/node/node-manager.ts'
import type { ServiceManager } from '../../src/service/service-manager.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import type { SimulatedDirectory } from './directory.ts'
import type { FraudNews } from './fraud-news.ts'
import type { Host } from './host.ts'
import type { Machine } from './machine.ts'
import type { Network } from './network.ts'
import type { Observer } from './observer.ts'
import type { World } from './world.ts'

export interface Medium {
  readonly world: World
  readonly network: Network
  readonly directory: SimulatedDirectory
  readonly observer: Observer
  readonly frauds: FraudNews
}

export interface NodeActor {
  readonly host: Host
  readonly machine: Machine
  readonly capacity: Resources
  /** While the node is up. */
  manager: NodeManager | undefined
}

export interface AgentActor {
  readonly host: Host
  readonly isHonest: boolean
  /** While an honest agent is up. */
  agent: Agent | undefined
}

export interface HolderActor {
  readonly host: Host
  /** While the holder is up. */
  services: ServiceManager | undefined
  /** Names of the slices that the person at it believes to have. */
  readonly slices: Set<string>
}

export interface Overlay extends Medium {
  readonly nodes: readonly NodeActor[]
  readonly agents: readonly AgentActor[]
  readonly holders: readonly HolderActor[]
  /** What a node lets an agent issue, overbooking included, if the agent has it all when nothing is leased. */
  readonly shareOf: (node: NodeActor, agent: Principal) => Resources | undefined
}

export function hostsOf({ nodes, agents, holders }: Overlay): Host[] {
  return [...nodes, ...agents, ...holders].map(({ host }) => host)
}

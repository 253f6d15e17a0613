/** The overlay of a seed: how many nodes, agents and holders, what they have, and whom they trust with it. */
import type { AgentShare } from '../../src/node/delegator.ts'
import { scaleResources } from '../../src/ticket/resources.ts'
import { amounts } from '../ticket/fixtures.ts'
import { makeAgent, type AgentActorInit } from './agent-actor.ts'
import { SimulatedDirectory } from './directory.ts'
import { FraudNews } from './fraud-news.ts'
import type { Flaw } from './flaws.ts'
import { makeHolder } from './holder-actor.ts'
import { Network } from './network.ts'
import { makeNode } from './node-actor.ts'
import { Observer } from './observer.ts'
import { hostsOf, type AgentActor, type Medium, type NodeActor, type Overlay } from './overlay.ts'
import type { World } from './world.ts'

const FIRST_PORT = 20_000
const PORTS = 8

/** Shares may come to more than a node has, and agents may be delegated the same ports. */
export function makeOverlay(world: World, flaw: Flaw | undefined): Overlay {
  const { chance } = world
  const observer = new Observer()
  const network = new Network(world, observer)
  const medium: Medium = {
    world,
    network,
    directory: new SimulatedDirectory(network, observer),
    frauds: new FraudNews(world, network),
    observer
  }
  const trades = chance.happens(400)
  const agents: AgentActor[] = Array.from({ length: chance.between(2, 3) }, (_none, index) =>
    makeAgent(medium, {
      name: `agent${index}`,
      // One at least is honest.
      isHonest: index === 0 || chance.happens(800),
      holdMs: chance.between(10, 60) * 1000,
      trade: () => (trades ? tradeOf(world, index, agents, nodes) : {}),
      flaw
    })
  )
  const shares = new Map<NodeActor, readonly AgentShare[]>()
  const nodes: NodeActor[] = Array.from({ length: chance.between(2, 4) }, (_none, index) => {
    const capacity = amounts(chance.between(3, 8))
    const trusted = trades && index === 0 ? agents.filter((agent) => agent !== agents[1]) : agents
    const mine = sharesOf(world, trusted, trades ? 2 : 1)
    const node = makeNode(medium, { name: `node${index}`, capacity, shares: () => mine, flaw })
    shares.set(node, mine)
    return node
  })
  const holders = Array.from({ length: chance.between(2, 3) }, (_none, index) =>
    makeHolder(medium, { name: `holder${index}`, flaw })
  )
  const overlay: Overlay = {
    ...medium,
    nodes,
    agents,
    holders,
    shareOf(node, agent) {
      const share = shares.get(node)?.find((one) => one.agent === agent)
      // What the first agent sells of the first node does not come back to it.
      if (share === undefined || (trades && node === nodes[0] && agent === agents[0]?.host.key.principal)) {
        return undefined
      }
      return scaleResources(scaleResources(node.capacity, share.sharePercent), share.overbookPercent)
    }
  }
  for (const host of hostsOf(overlay)) {
    network.add(host)
    host.skewMs = chance.between(-15_000, 15_000)
  }
  for (const { host } of [...agents, ...holders]) medium.directory.addListener(host)
  for (const { host } of nodes) medium.frauds.addListener(host)
  for (const { host, isHonest } of agents) if (!isHonest) medium.frauds.addCheat(host.key.principal)
  return overlay
}

/** The second agent has no delegation of the first node, and gets tickets of it from the first agent. */
function tradeOf(
  { chance }: World,
  index: number,
  agents: readonly AgentActor[],
  nodes: readonly NodeActor[]
): ReturnType<AgentActorInit['trade']> {
  const [seller, buyer] = agents.map(({ host }) => host.key.principal)
  const node = nodes[0]?.host.key.principal
  if (seller === undefined || buyer === undefined || node === undefined) return {}
  if (index === 0) return { partners: [{ principal: buyer }] }
  if (index !== 1) return {}
  const purchase = {
    node,
    resources: amounts(chance.between(1, 3)),
    ports: [{ protocol: 'tcp' as const }],
    rights: [],
    durationMs: 150_000
  }
  return { suppliers: [{ agent: seller, purchases: [purchase] }] }
}

function sharesOf({ chance }: World, agents: readonly AgentActor[], leastDepth: number): AgentShare[] {
  const isSplit = chance.happens(600)
  const each = Math.floor(PORTS / agents.length)
  return agents.map(({ host }, index) => {
    const first = isSplit ? FIRST_PORT + index * each : FIRST_PORT
    const last = isSplit ? first + each - 1 : FIRST_PORT + PORTS - 1
    return {
      agent: host.key.principal,
      sharePercent: chance.pick([30, 50, 70, 100]),
      overbookPercent: chance.pick([100, 100, 150, 200]),
      maxDepth: chance.between(leastDepth, 3),
      ports: [{ protocol: 'tcp', first, last }],
      rights: []
    }
  })
}

/** A node: the real manager, redemption, delegator and monitor over simulated parts. */
import { Lifecycle } from '../../src/base/lifecycle.ts'
import { Delegator, type AgentShare } from '../../src/node/delegator.ts'
import { NodeManager } from '../../src/node/node-manager.ts'
import { nodeHandlers } from '../../src/node/node-service.ts'
import { ResourceMonitor } from '../../src/node/resource-monitor.ts'
import { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import { nodeProtocol } from '../../src/protocol/node-protocol.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import { IMAGE } from '../ticket/fixtures.ts'
import { Host, type Process } from './host.ts'
import { Machine, SimulatedEnforcer } from './machine.ts'
import type { Medium, NodeActor } from './overlay.ts'
import { flawEnforcer, flawManager, storeFlawOf, type Flaw } from './flaws.ts'

export interface NodeInit {
  readonly name: string
  readonly capacity: Resources
  /** Asked for at each start, when the agents' keys are known. */
  readonly shares: () => readonly AgentShare[]
  readonly flaw: Flaw | undefined
}

const DELEGATION_TERM_MS = 600_000
const RETRY_MS = 2500

export function makeNode(medium: Medium, init: NodeInit): NodeActor {
  const machine = new Machine()
  const host = new Host(medium.world, {
    name: init.name,
    storeFlaw: storeFlawOf(init.flaw),
    program: (process) => run(medium, init, node, process)
  })
  const node: NodeActor = { host, machine, capacity: init.capacity, manager: undefined }
  return node
}

async function run(
  { network, directory, frauds }: Medium,
  { name, capacity, shares, flaw }: NodeInit,
  node: NodeActor,
  process: Process
): Promise<void> {
  const { clock, store, logger, epoch, host } = process
  const { key } = host
  process.onDeath(() => (node.manager = undefined))
  const enforcer = new SimulatedEnforcer(process, node.machine, capacity)
  flawEnforcer(enforcer, flaw)
  const manager = new NodeManager(
    {
      key,
      store,
      enforcer,
      clock,
      logger,
      delegations: {
        fault: (chain) => delegator.fault(chain),
        isAgent: (principal) => delegator.isAgent(principal),
        freed: (ticket) => delegator.freed(ticket)
      },
      observe: (object) => frauds.observe(process, object)
    },
    { capacity, address: () => '198.18.0.1', epoch }
  )
  const delegator: Delegator = new Delegator(
    {
      key,
      store,
      clock,
      logger,
      callAgent: (agent) => network.caller(process, agentProtocol, agent),
      leasedTo: (agent) => manager.table.leasedTo(agent),
      isOver: (ticket) => manager.isOver(ticket),
      isProven: (principal) => frauds.isProven(process, principal)
    },
    { capacity, epoch, shares: shares(), termMs: DELEGATION_TERM_MS, retryMs: RETRY_MS }
  )
  const monitor = new ResourceMonitor(
    {
      key,
      manager,
      clock,
      logger,
      images: async () => ({ debian: IMAGE }),
      agents: () => delegator.agents(),
      delegatedPercent: () => delegator.delegatedPercent,
      multiaddrs: () => [],
      publish: async (advert) => directory.publish(host, advert)
    },
    { name, epoch, capacity, attributes: { region: 'eu' }, intervalMs: 20_000, lifetimeMs: 70_000 }
  )
  delegator.onChange(() => monitor.reportSoon())
  await new Lifecycle([manager, delegator, monitor]).start()
  flawManager(manager, flaw)
  node.manager = manager
  process.serve(nodeProtocol, nodeHandlers({ manager, enforcer }))
}

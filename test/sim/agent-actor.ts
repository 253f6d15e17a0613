/** Agents: honest ones are the real agent; a cheating one signs whatever is asked of it. */
import { Agent, type AgentInit } from '../../src/agent/agent.ts'
import type { PlainPolicy } from '../../src/agent/admission-policy.ts'
import { agentProtocol, type TicketRequest } from '../../src/protocol/agent-protocol.ts'
import { nodeProtocol } from '../../src/protocol/node-protocol.ts'
import { advertisementObject } from '../../src/ticket/advertisement.ts'
import { delegationObject, type Delegation } from '../../src/ticket/delegation.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
import { storeFlawOf, type Flaw } from './flaws.ts'
import { Host, messageOf, type Process } from './host.ts'
import type { AgentActor, Medium } from './overlay.ts'
import { short } from './trace.ts'
import { note } from './world.ts'

export interface AgentActorInit {
  readonly name: string
  readonly isHonest: boolean
  readonly holdMs: number
  /** Other agents that may have tickets to cut from, and whom it gets such of; known once all hosts are there. */
  readonly trade: () => Pick<AgentInit, 'suppliers'> & Pick<PlainPolicy, 'partners'>
  readonly flaw: Flaw | undefined
}

const SETTLE_MS = 20_000
const DURATION_MS_MAX = 3_600_000

export function makeAgent(medium: Medium, init: AgentActorInit): AgentActor {
  const host = new Host(medium.world, {
    name: init.name,
    storeFlaw: storeFlawOf(init.flaw),
    program: (process) => (init.isHonest ? run(medium, init, actor, process) : cheat(medium, init, process))
  })
  const actor: AgentActor = { host, isHonest: init.isHonest, agent: undefined }
  return actor
}

async function run(
  { network, directory, frauds }: Medium,
  { holdMs, trade }: AgentActorInit,
  actor: AgentActor,
  process: Process
): Promise<void> {
  const { clock, store, logger, host } = process
  process.onDeath(() => (actor.agent = undefined))
  const { partners, suppliers } = trade()
  const agent = new Agent(
    {
      key: host.key,
      store,
      clock,
      logger,
      advertOf: (node) =>
        directory.entries(process).find(({ advert }) => advert.body.issuer === node)?.advert,
      callAgent: (other) => network.caller(process, agentProtocol, other),
      callNode: (node) => network.caller(process, nodeProtocol, node),
      observe: (object) => void frauds.observe(process, object),
      isProven: (principal) => frauds.isProven(process, principal)
    },
    {
      policy: { holders: 'anyone', durationMsMax: DURATION_MS_MAX, rights: [], partners: partners ?? [] },
      suppliers: suppliers ?? [],
      holdMs,
      settleIntervalMs: SETTLE_MS
    }
  )
  await agent.start()
  actor.agent = agent
  process.serve(agentProtocol, agent.handlers())
}

/** Offers all it has again and again, and gives out each port as often as it is asked for one. */
async function cheat(
  { directory, world }: Medium,
  { holdMs }: AgentActorInit,
  process: Process
): Promise<void> {
  const { key } = process.host
  const delegations = new Map<Principal, Signed<Delegation>>()
  let seq = process.clock.now()
  const issue = (slice: string, holder: Principal, request: TicketRequest): Uint8Array[] | undefined => {
    const delegation = delegations.get(request.node)
    if (delegation === undefined) return undefined
    const now = process.clock.now()
    const range = delegation.body.ports[0]
    const ports = range === undefined ? [] : request.ports.map((_wish, index) => range.first + index)
    const ticket = ticketObject.sign(
      {
        issuer: key.principal,
        notBefore: now - 60_000,
        notAfter: now + request.durationMs,
        // Now and then one number for two.
        seq: world.chance.happens(100) ? seq : (seq += 1),
        parent: delegation.id,
        node: request.node,
        holder,
        slice,
        resources: request.resources,
        ports: ports.map((port) => ({ protocol: 'tcp', first: port, last: port })),
        rights: [],
        canDelegate: false,
        redeemBefore: now + Math.min(holdMs, request.durationMs)
      },
      key
    )
    return [delegation.bytes, ticket.bytes]
  }
  process.serve(agentProtocol, {
    delegate: async ({ delegation }) => {
      const opened = delegationObject.open(delegation)
      delegations.set(opened.body.issuer, opened)
      return { taken: true, lacking: [], unknown: [] }
    },
    getAds: async (_params, { emit }) => {
      for (const { advert } of directory.entries(process)) {
        const delegation = delegations.get(advert.body.issuer)
        if (delegation === undefined) continue
        const { resources, notAfter } = delegation.body
        await emit({
          advert: advertisementObject.open(advert.bytes).bytes,
          available: resources,
          until: notAfter,
          reliability: 1000
        })
      }
      return { ratings: [] }
    },
    getTickets: async ({ slice = 'any', requests }, { principal = '' }) => ({
      grants: requests.map((request) => {
        const chain = issue(slice, principal, request)
        return { node: request.node, ...(chain === undefined ? {} : { chain }) }
      })
    }),
    releaseTickets: async () => ({}),
    report: async () => ({})
  })
}

/** Takes one of an agent's tickets back, as the person at it may. */
export function revoke({ world }: Medium, { agent, host }: AgentActor): void {
  const out = agent?.tickets().filter(({ state }) => state === 'out') ?? []
  if (agent === undefined || out.length === 0) return
  const { id } = world.chance.pick(out)
  note(world, host.name, `revoke ${short(id)}?`)
  agent.revoke(id).then(
    () => note(world, host.name, `revoke ${short(id)}: done`),
    (error: unknown) => note(world, host.name, `revoke ${short(id)}: ${messageOf(error)}`)
  )
}

/** An agent with a store, a clock and nodes that the test speaks for. */
import { Agent, type AgentComponents, type AgentInit } from '../../src/agent/agent.ts'
import { SlicenetError } from '../../src/base/errors.ts'
import { silentLogger } from '../../src/base/log.ts'
import { agentProtocol, type Grant, type TicketRequest } from '../../src/protocol/agent-protocol.ts'
import type { Caller } from '../../src/protocol/method.ts'
import type { nodeProtocol, TicketState } from '../../src/protocol/node-protocol.ts'
import { delegationObject } from '../../src/ticket/delegation.ts'
import type { Principal, SigningKey } from '../../src/ticket/principal.ts'
import { refusalObject, type Refusal } from '../../src/ticket/refusal.ts'
import { revocationObject, type Revocation } from '../../src/ticket/revocation.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { ticketObject, type Ticket } from '../../src/ticket/ticket.ts'
import { FaultyStore } from '../base/faulty-store.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { HOUR, amounts, delegate, makeKey } from '../ticket/fixtures.ts'

type NodeCaller = Caller<typeof nodeProtocol.methods>

export interface AgentLab {
  readonly key: SigningKey
  readonly clock: ManualClock
  readonly store: FaultyStore
  readonly agent: Agent
  /** What the node said it was asked to settle, and what it answers; by default every ticket is open. */
  readonly settled: { tickets: Signed<Ticket>[]; cancel: boolean }[]
  answer: (ticket: Signed<Ticket>, cancel: boolean) => TicketState | Promise<TicketState>
  as(principal: Principal): Caller<typeof agentProtocol.methods>
  /** Revocations that the node was told, and whether it takes them. */
  readonly revoked: Signed<Revocation>[]
  takesRevocations: boolean
  /** Another agent process over the same key, disk and clock. */
  restart(): Promise<AgentLab>
}

export const POLICY: AgentInit = {
  policy: { holders: 'anyone', durationMsMax: 4 * HOUR, rights: ['raw-socket'] },
  holdMs: 300_000,
  settleIntervalMs: 15_000,
  callMs: 50
}

export async function agentLab(
  changes: Partial<AgentInit> = {},
  from: Partial<Pick<AgentLab, 'key' | 'clock' | 'store'>> & Partial<AgentComponents> = {}
): Promise<AgentLab> {
  const key = from.key ?? makeKey()
  const clock = from.clock ?? new ManualClock()
  const store = await FaultyStore.open(from.store?.disk)
  const lab = {
    key,
    clock,
    store,
    settled: [],
    revoked: [],
    takesRevocations: true,
    answer: () => 'open'
  } as unknown as {
    -readonly [K in keyof AgentLab]: AgentLab[K]
  }
  const revoke = (revocation: Uint8Array): Record<string, never> => {
    if (!lab.takesRevocations) throw new SlicenetError('PEER_UNREACHABLE', 'the node is away')
    lab.revoked.push(revocationObject.open(revocation))
    return {}
  }
  const callNode = (): NodeCaller =>
    (async (
      method: string,
      params: { tickets: Uint8Array[]; cancel: boolean; revocation: Uint8Array },
      options: { signal?: AbortSignal } = {}
    ) => {
      if (method === 'revoke') return revoke(params.revocation)
      const tickets = params.tickets.map((bytes) => ticketObject.open(bytes))
      lab.settled.push({ tickets, cancel: params.cancel })
      const states = Promise.all(tickets.map(async (ticket) => lab.answer(ticket, params.cancel)))
      return { states: await Promise.race([states, aborted(options.signal)]) }
    }) as unknown as NodeCaller
  const agent = new Agent(
    { logger: silentLogger, advertOf: () => undefined, callNode, ...from, key, store, clock },
    { ...POLICY, ...changes }
  )
  lab.agent = agent
  lab.as = (principal) => localCaller(agentProtocol, agent.handlers(), principal)
  lab.restart = async () => {
    await agent.stop()
    return agentLab(changes, { ...from, key, clock, store })
  }
  await agent.start()
  return lab
}

async function aborted(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
  })
}

/** Hands the agent a delegation of `node`. */
export async function handOver(
  lab: AgentLab,
  node: SigningKey,
  changes: Parameters<typeof delegate>[2] = {}
): Promise<string> {
  const delegation = delegate(node, lab.key, changes)
  await lab.as(node.principal)('delegate', { delegation: delegation.bytes })
  return delegation.id
}

/** Hands over what an honest node would: a later delegation that counts what is out. Gives what the agent says. */
export async function delegateAnew(
  lab: AgentLab,
  node: SigningKey,
  changes: Parameters<typeof delegate>[2] = {}
): Promise<{ taken: boolean; lacking: Uint8Array[]; unknown: string[] }> {
  const out = lab.agent
    .tickets()
    .filter(({ node: of, state }) => of === node.principal && state !== 'settled')
  const counts = out.map(({ id }) => id).sort()
  const { bytes } = delegate(node, lab.key, { seq: 2, counts, ...changes })
  return lab.as(node.principal)('delegate', { delegation: bytes })
}

export function request(node: SigningKey, changes: Partial<TicketRequest> = {}): TicketRequest {
  return { node: node.principal, resources: amounts(1), ports: [], rights: [], durationMs: HOUR, ...changes }
}

export type Opened = { readonly ticket: Signed<Ticket> } | { readonly refusal: Signed<Refusal> }

export async function ask(
  lab: AgentLab,
  holder: SigningKey,
  ...requests: TicketRequest[]
): Promise<Opened[]> {
  const { grants } = await lab.as(holder.principal)('getTickets', { slice: 'mesh', requests })
  return grants.map(openGrant)
}

export function openGrant(grant: Grant): Opened {
  if (grant.refusal !== undefined) return { refusal: refusalObject.open(grant.refusal) }
  const [delegation, ticket] = grant.chain ?? []
  if (delegation === undefined || ticket === undefined) throw new TypeError('neither ticket nor refusal')
  delegationObject.open(delegation)
  return { ticket: ticketObject.open(ticket) }
}

/** The code of a refusal, or `granted`. */
export function outcome(opened: Opened | undefined): string {
  if (opened === undefined) return 'nothing'
  return 'refusal' in opened ? opened.refusal.body.code : 'granted'
}

export function ticketOf(opened: Opened | undefined): Signed<Ticket> {
  if (opened === undefined || !('ticket' in opened)) throw new TypeError(`no ticket but ${outcome(opened)}`)
  return opened.ticket
}

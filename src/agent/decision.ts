/**
 * The decision whether one more ticket may be cut from a source, so that what an agent signs can never be shown to be
 * too much. Pure: time comes in as an argument.
 */
import type { ErrorCode } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { TicketRequest } from '../protocol/agent-protocol.ts'
import { issuable } from '../ticket/fraud.ts'
import type { Interval } from '../ticket/interval.ts'
import type { PortRange } from '../ticket/ports.ts'
import type { Principal } from '../ticket/principal.ts'
import {
  addResources,
  largerResources,
  resourcesExceeding,
  SUMMED_RESOURCES,
  type ResourceName,
  type Resources
} from '../ticket/resources.ts'
import { shapingExceeding, shapingExcess, shapingWithin, type Shaping } from '../ticket/shaping.ts'
import type { Issued, NodeAccount } from './node-account.ts'
import type { PortChoice } from './port-table.ts'
import { depthLeft, isDelegation, type Source } from './source.ts'

/** A request and who makes it, for which slice; for none when other tickets are to be cut from what is asked for. */
export interface Ask {
  readonly request: TicketRequest
  readonly holder: Principal
  readonly slice?: string | undefined
  /** The most that the agent's own policy lets a ticket say. */
  readonly shaping?: Shaping | undefined
}

export interface Refused {
  readonly code: ErrorCode
  readonly message: string
}

export interface Granted extends Interval {
  readonly source: Source
  readonly ports: readonly PortRange[]
  readonly shaping: Shaping | undefined
}

/** What is about to be signed, or why nothing is. */
export type Decision = { readonly granted: Granted } | { readonly refused: Refused }

/** The node's clock may lag behind the agent's by this much: a term begins so long before it is asked for. */
export const CLOCK_SKEW_MS = 60_000

/** A delegation counts so many earlier tickets at most; the last of them are for renewals. */
const NEW_TICKETS_MAX = LIMITS.countedTicketsMax - LIMITS.ticketsPerMessageMax

/** When it is, and what was there before: nothing is granted for a time about which anything was forgotten. */
export interface Moment {
  readonly now: number
  /** UTC ms. */
  readonly horizon: number
}

/** The line that a request goes on with: its name, and the ticket of it that was issued last, if any was. */
export interface AskedLine {
  readonly name: string
  readonly newest: Issued | undefined
}

/** The name of the line that a request says it goes on with, see `lineOf`. */
export function askedLine({ request: { supersedes, node }, holder, slice }: Ask): string | undefined {
  return supersedes === undefined ? undefined : [supersedes, holder, node, slice ?? ''].join(' ')
}

/**
 * What a ticket would say: as asked, and where nothing is, the most that may be. A lease is renewed with just what it says
 * already.
 */
export function wantedShaping({ request, slice, shaping }: Ask, source?: Source): Shaping | undefined {
  return slice !== undefined && request.supersedes !== undefined
    ? request.shaping
    : shapingWithin(request.shaping, shaping, source?.parent.body.shaping)
}

/** Decides on a request by one source. */
export function decideFrom(
  source: Source,
  account: NodeAccount,
  ask: Ask,
  line: AskedLine | undefined,
  { now, horizon }: Moment
): Decision {
  const { request } = ask
  const { parent } = source
  const term = {
    notBefore: Math.max(now - CLOCK_SKEW_MS, parent.body.notBefore, horizon),
    notAfter: now + request.durationMs
  }
  if (term.notAfter > parent.body.notAfter) {
    const until = new Date(parent.body.notAfter).toISOString()
    return refuse(
      'QUOTA_EXCEEDED',
      `${isDelegation(source) ? 'the node delegates' : 'a share is had'} until ${until} only`
    )
  }
  const limited =
    rightFault(source, request) ??
    shapingFault(source, ask) ??
    depthFault(source, request) ??
    countFault(source, account, line)
  if (limited !== undefined) return { refused: limited }
  const short = shortage(source, account, request, line, term)
  if (short !== undefined) return { refused: short }
  const kept = line?.newest?.ticket.body.ports
  const choice =
    line === undefined || kept === undefined
      ? account.ports.choose(request.ports, parent.body.ports, term)
      : keptPorts(account, kept, parent.body.ports, term, line.name)
  if ('fault' in choice) return refuse('PORT_TAKEN', choice.fault)
  return { granted: { source, ports: choice.ports, shaping: wantedShaping(ask, source), ...term } }
}

/** A renewal goes on with the ports of its line. */
function keptPorts(
  account: NodeAccount,
  ports: readonly PortRange[],
  allowed: readonly PortRange[],
  term: Interval,
  line: string
): PortChoice {
  const fault = account.ports.fault(ports, allowed, term, line)
  return fault === undefined ? { ports } : { fault }
}

function rightFault({ parent }: Source, request: TicketRequest): Refused | undefined {
  const right = request.rights.find((name) => !parent.body.rights.includes(name))
  if (right === undefined) return undefined
  return { code: 'DENIED', message: `the node does not delegate the right ${right}` }
}

function shapingFault(source: Source, ask: Ask): Refused | undefined {
  const [wanted, had] = [wantedShaping(ask, source), source.parent.body.shaping]
  const [looser] = shapingExceeding(wanted, had)
  if (looser === undefined) return undefined
  return { code: 'OVERBOOKED', message: `${shapingExcess(looser, wanted, had)} by the node` }
}

function depthFault(source: Source, request: TicketRequest): Refused | undefined {
  const needed = request.canDelegate === true ? 2 : 1
  if (depthLeft(source) >= needed) return undefined
  return { code: 'DENIED', message: 'the node does not let tickets hang so deep below its delegation' }
}

function countFault(source: Source, account: NodeAccount, line: AskedLine | undefined): Refused | undefined {
  const max = line?.newest === undefined ? NEW_TICKETS_MAX : LIMITS.countedTicketsMax
  if (!isDelegation(source) || account.unsettledCount < max) return undefined
  return { code: 'OVERBOOKED', message: `${account.unsettledCount} tickets of this node are out already` }
}

function shortage(
  source: Source,
  account: NodeAccount,
  request: TicketRequest,
  line: AskedLine | undefined,
  term: Interval
): Refused | undefined {
  const had = source.parent.body.resources
  const [tooMuch] = resourcesExceeding(request.resources, had)
  if (tooMuch !== undefined) {
    return { code: 'OVERBOOKED', message: `${tooMuch}: ${request.resources[tooMuch]} of ${had[tooMuch]}` }
  }
  const ledger = account.ledger(source)
  const others = ledger.peak(term, line?.name)
  const own =
    line === undefined ? request.resources : largerResources(request.resources, ledger.claimOf(line.name))
  const short = summedExceeding(addResources(others, own), issuable(source.parent))
  return short === undefined
    ? undefined
    : { code: 'OVERBOOKED', message: `no ${short} is left to grant at this node` }
}

function summedExceeding(wanted: Resources, limit: Resources): ResourceName | undefined {
  return SUMMED_RESOURCES.find((name) => wanted[name] > limit[name])
}

export function refuse(code: ErrorCode, message: string): { readonly refused: Refused } {
  return { refused: { code, message } }
}

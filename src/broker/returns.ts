/** What goes back to agents: tickets that will not be redeemed, and what became of the others. */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { agentProtocol, Receipt } from '../protocol/agent-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { Ticket } from '../ticket/ticket.ts'
import type { Holding } from './grant.ts'

export interface ReturnsComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly callAgent: (agent: Principal) => Caller<typeof agentProtocol.methods>
}

/** What a ticket came to: the holder's demand and the node's answer, envelopes; neither when the node gave none. */
export interface Redemption extends Receipt {
  readonly agent: Principal
  readonly ticket: Signed<Ticket>
}

/** So many receipts of the largest objects fit one message. */
const RECEIPTS_AT_ONCE = 7

/** Gives tickets back that will not be redeemed. Agents that do not answer find out when the hold is over. */
export async function releaseTickets(
  { clock, logger, callAgent }: ReturnsComponents,
  holdings: readonly Pick<Holding, 'agent' | 'ticket'>[],
  callMs: number
): Promise<void> {
  await Promise.all(
    [...Map.groupBy(holdings, ({ agent }) => agent)].map(async ([agent, ofAgent]) => {
      try {
        for (const batch of batches(ofAgent, LIMITS.ticketsPerMessageMax)) {
          const tickets = batch.map(({ ticket }) => ticket.id)
          await callAgent(agent)('releaseTickets', { tickets }, { signal: within(clock, callMs) })
        }
      } catch (error) {
        logger.debug('tickets were not given back', { agent, error })
      }
    })
  )
}

/** Shows agents what their tickets came to. Those that do not answer do not learn it. */
export async function reportReceipts(
  { clock, logger, callAgent }: ReturnsComponents,
  redemptions: readonly Redemption[],
  callMs: number
): Promise<void> {
  const answered = redemptions.filter(({ lease, refusal }) => lease !== undefined || refusal !== undefined)
  await Promise.all(
    [...Map.groupBy(answered, ({ agent }) => agent)].map(async ([agent, ofAgent]) => {
      try {
        for (const batch of batches(ofAgent, RECEIPTS_AT_ONCE)) {
          const receipts = batch.map(({ redeem, lease, refusal }) => ({
            redeem,
            ...(lease === undefined ? {} : { lease }),
            ...(refusal === undefined ? {} : { refusal })
          }))
          await callAgent(agent)('report', { receipts }, { signal: within(clock, callMs) })
        }
      } catch (error) {
        logger.debug('receipts were not reported', { agent, error })
      }
    })
  )
}

/** As many at a time as one message takes. */
function batches<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_one, index) =>
    items.slice(index * size, (index + 1) * size)
  )
}

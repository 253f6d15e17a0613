/** Asking one agent for tickets again and again, as many callers at once. */
import { systemClock } from '../../src/base/clock.ts'
import type { agentProtocol, Grant } from '../../src/protocol/agent-protocol.ts'
import type { Caller } from '../../src/protocol/method.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import { HOUR, amounts } from '../ticket/fixtures.ts'

export interface AskedInit {
  readonly nodes: readonly Principal[]
  readonly forMs: number
}

export interface AskingCaller {
  readonly principal: Principal
  readonly call: Caller<typeof agentProtocol.methods>
}

export interface Asked {
  readonly granted: number
  readonly refused: number
  /** From the first request to the last answer. */
  readonly elapsedMs: number
  /** The last chain of each caller: envelopes in base64. */
  readonly chains: readonly { readonly holder: Principal; readonly chain: readonly string[] }[]
}

const TICKETS_PER_REQUEST = 10

/** Each caller asks for ten tickets of ten nodes, and for the next ones when it has them. */
export async function askAgain(
  callers: readonly AskingCaller[],
  { nodes, forMs }: AskedInit
): Promise<Asked> {
  const counts = { granted: 0, refused: 0, asked: 0 }
  const began = systemClock.monotonic()
  const last = await Promise.all(
    callers.map(async ({ principal, call }) => {
      let grants: readonly Grant[] = []
      while (systemClock.monotonic() < began + forMs) {
        const requests = Array.from({ length: TICKETS_PER_REQUEST }, () => {
          const node = nodes[counts.asked++ % nodes.length]!
          return { node, resources: amounts(1), ports: [], rights: [], durationMs: HOUR / 2 }
        })
        ;({ grants } = await call('getTickets', { slice: 'mesh', requests }))
        const granted = grants.filter(({ chain }) => chain !== undefined).length
        counts.granted += granted
        counts.refused += TICKETS_PER_REQUEST - granted
      }
      return { holder: principal, grant: grants.at(-1) }
    })
  )
  const elapsedMs = systemClock.monotonic() - began
  const chains = last.flatMap(({ holder, grant }) => {
    const chain = grant?.chain?.map((bytes) => Buffer.from(bytes).toString('base64'))
    return chain === undefined ? [] : [{ holder, chain }]
  })
  return { granted: counts.granted, refused: counts.refused, elapsedMs, chains }
}

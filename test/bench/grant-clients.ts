/**
 * The clients of the benchmark of grants, in a process of their own so that what they cost is not the agent's: told
 * first whom to connect to, then, again and again, to ask for tickets.
 */
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { createPeerHost } from '../../src/peer/host.ts'
import { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import { makeKey } from '../ticket/fixtures.ts'
import { askAgain, type AskedInit, type AskingCaller } from './grant-asking.ts'

interface Connecting {
  readonly clients: number
  readonly agent: Principal
  readonly addresses: readonly string[]
}

let callers: readonly AskingCaller[] = []

async function connect({ clients, agent, addresses }: Connecting): Promise<AskingCaller[]> {
  return Promise.all(
    Array.from({ length: clients }, async () => {
      const key = makeKey()
      const host = createPeerHost(
        { clock: systemClock, logger: silentLogger },
        { key, listen: [], bootstrap: [], dhtMode: 'client' }
      )
      await host.start()
      await host.addAddresses(agent, addresses)
      const call = host.caller(agentProtocol, agent)
      await call('releaseTickets', { tickets: [] }).catch(() => {})
      return { principal: key.principal, call }
    })
  )
}

process.on('message', (message: Connecting | AskedInit) => {
  const work = async (): Promise<unknown> => {
    if ('forMs' in message) return askAgain(callers, message)
    callers = await connect(message)
    return { connected: callers.length }
  }
  work().then(
    (answer) => process.send?.(answer),
    (error: unknown) => {
      process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
      process.exit(1)
    }
  )
})
// Whoever asks is gone.
process.on('disconnect', () => process.exit())

/**
 * Measures the tickets that one agent grants a second, each in its synced journal before it is given out: to 32
 * clients over libp2p, which run in a process of their own, and to as many callers within this process.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Agent } from '../../src/agent/agent.ts'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { createPeerHost } from '../../src/peer/host.ts'
import { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import type { Handlers } from '../../src/protocol/method.ts'
import { createStore } from '../../src/store/disk-store.ts'
import { chainFault } from '../../src/ticket/chain.ts'
import { delegationObject } from '../../src/ticket/delegation.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { HOUR, amounts, delegate, makeKey } from '../ticket/fixtures.ts'
import { figure, type BenchContext, type Figure } from './figure.ts'
import { askAgain, type Asked, type AskedInit } from './grant-asking.ts'
import { ownDirectory } from '../linux/own-names.ts'

const CLIENTS = 32
/** An agent has at most 128 tickets of one node out that were not settled. */
const NODES = 250
const RUNS = 5
const RUN_MS = 2000

type Methods = typeof agentProtocol.methods

export async function grants({ signal, progress }: BenchContext): Promise<Figure[]> {
  const [key, nodes] = [makeKey(), Array.from({ length: NODES }, () => makeKey())]
  let handlers: Handlers<Methods> | undefined
  const host = createPeerHost(
    { clock: systemClock, logger: silentLogger },
    { key, listen: ['/ip4/127.0.0.1/tcp/0'], bootstrap: [], dhtMode: 'server' }
  )
  await host.serve(agentProtocol, {
    delegate: (...call) => handlers!.delegate(...call),
    getAds: (...call) => handlers!.getAds(...call),
    getTickets: (...call) => handlers!.getTickets(...call),
    report: (...call) => handlers!.report(...call),
    releaseTickets: (...call) => handlers!.releaseTickets(...call)
  })
  const clients = fork(fileURLToPath(new URL('grant-clients.ts', import.meta.url)))
  try {
    await host.start()
    clients.send({ clients: CLIENTS, agent: key.principal, addresses: host.multiaddrs() })
    await reply(clients, signal)
    progress(`${CLIENTS} clients are connected`)
    const perSecond: Record<'network' | 'local', number[]> = { network: [], local: [] }
    // The first run of each is for the engines to compile.
    for (let run = -1; run < RUNS; run++) {
      for (const way of ['network', 'local'] as const) {
        signal.throwIfAborted()
        const asked = await withAgent(key, nodes, async (agent) => {
          handlers = agent.handlers()
          const init = { nodes: nodes.map(({ principal }) => principal), forMs: RUN_MS }
          if (way === 'local') return askLocally(handlers, init)
          clients.send(init)
          return (await reply(clients, signal)) as Asked
        })
        check(asked, nodes)
        if (run >= 0) perSecond[way].push((asked.granted * 1000) / asked.elapsedMs)
      }
      progress(`grants, run ${run + 1} of ${RUNS}: done`)
    }
    return [
      figure('durable_grants_per_s', perSecond.network, { unit: '1/s', atLeast: 1000 }),
      figure('durable_grants_local_per_s', perSecond.local, { unit: '1/s' })
    ]
  } finally {
    const gone = clients.exitCode === null && clients.signalCode === null ? once(clients, 'exit') : undefined
    clients.kill('SIGKILL')
    await gone
    await host.stop()
  }
}

async function reply(child: ChildProcess, signal: AbortSignal): Promise<unknown> {
  const ended = new AbortController()
  try {
    const either = AbortSignal.any([signal, ended.signal])
    return await Promise.race([
      once(child, 'message', { signal: either }).then(([message]: unknown[]) => message),
      once(child, 'exit', { signal: either }).then(() => {
        throw new Error('the clients ended')
      })
    ])
  } finally {
    ended.abort()
  }
}

/** A new agent over a new journal, with a delegation of each node. */
async function withAgent<T>(
  key: SigningKey,
  nodes: readonly SigningKey[],
  use: (agent: Agent) => Promise<T>
): Promise<T> {
  const parent = await ownDirectory('grants')
  const components = { clock: systemClock, logger: silentLogger }
  const store = createStore(components, { directory: join(parent, 'store') })
  const agent = new Agent(
    {
      ...components,
      key,
      store,
      advertOf: () => undefined,
      callNode: () => async () => {
        throw new Error('nodes are not asked here')
      }
    },
    {
      policy: {
        holders: 'anyone',
        durationMsMax: HOUR,
        rights: [],
        ticketsPerHolderMax: 1_000_000,
        partners: []
      },
      holdMs: HOUR,
      settleIntervalMs: HOUR
    }
  )
  try {
    await store.start()
    await agent.start()
    const now = systemClock.now()
    for (const node of nodes) {
      const delegation = delegate(node, key, {
        notBefore: now - HOUR,
        notAfter: now + 24 * HOUR,
        resources: amounts(100_000)
      })
      await localCaller(
        agentProtocol,
        agent.handlers(),
        node.principal
      )('delegate', { delegation: delegation.bytes })
    }
    return await use(agent)
  } finally {
    await agent.stop()
    await store.stop()
    await rm(parent, { recursive: true, force: true })
  }
}

async function askLocally(handlers: Handlers<Methods>, init: AskedInit): Promise<Asked> {
  const callers = Array.from({ length: CLIENTS }, () => {
    const { principal } = makeKey()
    return { principal, call: localCaller(agentProtocol, handlers, principal) }
  })
  return askAgain(callers, init)
}

/** A chain of each client, once. */
function check({ granted, refused, chains }: Asked, nodes: readonly SigningKey[]): void {
  if (refused > 0 || granted === 0 || chains.length !== CLIENTS)
    throw new Error(`${refused} requests were refused`)
  for (const { holder, chain } of chains) {
    const [delegation, ticket] = chain.map((text) => Uint8Array.from(Buffer.from(text, 'base64')))
    const opened = { delegation: delegationObject.open(delegation!), tickets: [ticketObject.open(ticket!)] }
    const node = opened.delegation.body.issuer
    const fault = chainFault(opened, { node, holder, now: systemClock.now() })
    if (fault !== undefined || !nodes.some(({ principal }) => principal === node)) {
      throw new Error(`a ticket does not hold: ${fault?.message ?? 'of an unknown node'}`)
    }
  }
}

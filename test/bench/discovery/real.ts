/** What a hundred real peers show: how soon a new node is known, how long a dead one is, what an idle peer costs. */
import { performance } from 'node:perf_hooks'
import { systemClock } from '../../../src/base/clock.ts'
import { figure, type BenchContext, type Figure } from '../figure.ts'
import { ByteMeter } from './byte-meter.ts'
import { lookups } from './lookups.ts'
import { RealOverlay, type RealPeer } from './real-overlay.ts'

const HUNDRED = { agents: 8, researchers: 4, nodes: 88, newNodes: 30 }
const DEAD_NODES = 5
const KNOWN_MS_MAX = 15_000
const GONE_MS_MAX = 150_000
const SETTLED_MS_MAX = 200_000
const REST_WINDOW_MS = 10_000
const BUSY_SHARE_MAX = 0.6
const QUIET_MS = 60_000
const POLL_MS = 20

export async function realPeers(context: BenchContext, init = HUNDRED): Promise<Figure[]> {
  const { signal, progress } = context
  using meter = new ByteMeter()
  await using overlay = new RealOverlay({ meter })
  const count = init.agents + init.researchers + init.nodes
  progress(`starting ${count} peers`)
  const before = process.memoryUsage().rss
  await overlay.add('agent', init.agents, signal)
  await overlay.add('researcher', init.researchers, signal)
  await overlay.add('node', init.nodes, signal)
  await until(() => overlay.recall() === 1, SETTLED_MS_MAX, signal)
  await atRest(signal)
  progress(
    `the agents know ${(overlay.recall() * 100).toFixed(1)} % of the nodes; measuring ${QUIET_MS / 1000} s of quiet`
  )
  const traffic = await quiet(overlay, meter, signal)
  const memory = (process.memoryUsage().rss - before) / count / 2 ** 20
  const known = await newNodes(overlay, init.newNodes, context)
  const found = await lookups(overlay, context)
  const gone = await deadNodes(overlay, context)
  known.sort((a, b) => a - b)
  const seconds = { unit: 's' }
  return [
    figure('new_node_p50_s', [known[Math.floor(known.length / 2)]!], seconds),
    figure('new_node_p99_s', [known[Math.ceil(known.length * 0.99) - 1]!], { ...seconds, atMost: 5 }),
    figure('dead_node_gone_s', gone, seconds),
    figure('real_node_bytes_per_min_100', traffic.node, { unit: 'bytes' }),
    figure('real_agent_bytes_per_node_per_min_100', traffic.agent, { unit: 'bytes' }),
    figure('memory_per_peer_mib', [memory], { unit: 'MiB' }),
    ...found
  ]
}

/** Bytes a minute: of each node, and of each agent for each node that it hears of. */
async function quiet(
  overlay: RealOverlay,
  meter: ByteMeter,
  signal: AbortSignal
): Promise<{ readonly node: number[]; readonly agent: number[] }> {
  const bytes = (peer: RealPeer): number => meter.bytesOf(peer.key.principal)
  const [nodes, agents] = [overlay.ofRole('node'), overlay.ofRole('agent')]
  const before = new Map([...nodes, ...agents].map((peer) => [peer, bytes(peer)]))
  await systemClock.sleep(QUIET_MS, { signal })
  const perMinute = (peer: RealPeer): number => (bytes(peer) - (before.get(peer) ?? 0)) * (60_000 / QUIET_MS)
  return {
    node: nodes.map(perMinute),
    agent: agents.map((agent) => perMinute(agent) / hears(agent))
  }
}

function hears({ directory }: RealPeer): number {
  return directory.entries().filter(({ advert }) => advert.body.role === 'node').length
}

/** Seconds from the start of a new node's process to its being known to every agent. */
async function newNodes(
  overlay: RealOverlay,
  count: number,
  { signal, progress }: BenchContext
): Promise<number[]> {
  progress(`adding ${count} nodes, one after the other`)
  const agents = overlay.ofRole('agent')
  const times: number[] = []
  for (let i = 0; i < count; i++) {
    const node = overlay.make('node')
    const began = performance.now()
    const [known] = await Promise.all([
      until(() => overlay.listedBy(node, agents) === agents.length, KNOWN_MS_MAX, signal),
      overlay.start(node)
    ])
    times.push(known ? (performance.now() - began) / 1000 : Infinity)
    progress(`node ${i + 1} of ${count}: ${times.at(-1)?.toFixed(2)} s`)
    await overlay.stop(node)
  }
  return times
}

/** Seconds from the death of a node to its being known to none of the agents that it delegates to. */
async function deadNodes(overlay: RealOverlay, { signal, progress }: BenchContext): Promise<number[]> {
  progress(`${DEAD_NODES} nodes die`)
  const dead = overlay.ofRole('node').slice(0, DEAD_NODES)
  return Promise.all(
    dead.map(async (node) => {
      const began = performance.now()
      await overlay.kill(node)
      const isGone = await until(() => overlay.listedBy(node, node.agents) === 0, GONE_MS_MAX, signal)
      return isGone ? (performance.now() - began) / 1000 : Infinity
    })
  )
}

/** Waits until the one processor that all peers share is idle for a part of the time, as that of each would be long before. */
async function atRest(signal: AbortSignal): Promise<void> {
  const end = performance.now() + SETTLED_MS_MAX
  for (let before = performance.eventLoopUtilization(); performance.now() < end;) {
    await systemClock.sleep(REST_WINDOW_MS, { signal })
    const now = performance.eventLoopUtilization()
    if (performance.eventLoopUtilization(now, before).utilization < BUSY_SHARE_MAX) return
    before = now
  }
}

/** Whether the condition came to hold in time. */
async function until(condition: () => boolean, ms: number, signal: AbortSignal): Promise<boolean> {
  const end = performance.now() + ms
  while (!condition()) {
    if (performance.now() > end) return false
    await systemClock.sleep(POLL_MS, { signal })
  }
  return true
}

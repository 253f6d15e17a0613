/** What simulated overlays of a hundred, a thousand and ten thousand peers show: traffic that is to stay flat, recall. */
import { Overlay, type Member, type OverlayInit } from '../../overlay-sim/overlay.ts'
import { steadyTraffic } from '../../overlay-sim/steady-traffic.ts'
import { figure, type BenchContext, type Figure } from '../figure.ts'

/** Regions, and with them agents, come with nodes: an agent serves a region, however large the overlay. */
const SIZES: Readonly<Record<number, Omit<OverlayInit, 'seed'>>> = {
  100: { nodes: 92, agents: 4, researchers: 4, regions: 1 },
  1000: { nodes: 952, agents: 40, researchers: 8, regions: 10 },
  10_000: { nodes: 9588, agents: 400, researchers: 12, regions: 100 }
}
const SEED = 4
const SETTLE_MS = 50_000
const MEASURED_MS = 30_000
const DOWN_MS = 2000
const AFTER_RESTART_MS = 30_000

interface Measured {
  readonly node: number
  readonly agent: number
  readonly recall: number
}

export async function simulated({ signal, progress }: BenchContext): Promise<Figure[]> {
  const bySize = new Map<number, Measured>()
  for (const [size, init] of Object.entries(SIZES)) {
    signal.throwIfAborted()
    const began = performance.now()
    const measured = await measure({ ...init, seed: SEED }, signal)
    bySize.set(Number(size), measured)
    progress(
      `simulated ${size} peers in ${((performance.now() - began) / 1000).toFixed(0)} s: ${JSON.stringify(measured)}`
    )
  }
  const [small, large] = [bySize.get(100)!, bySize.get(10_000)!]
  const bytes = { unit: 'bytes' }
  return [
    ...[...bySize].flatMap(([size, { node, agent, recall }]) => [
      figure(`node_bytes_per_min_${size}`, [node], bytes),
      figure(`agent_bytes_per_node_per_min_${size}`, [agent], bytes),
      figure(`recall_after_restart_${size}`, [recall], { unit: 'share', atLeast: 0.99 })
    ]),
    figure('recall_after_restart', [Math.min(...[...bySize.values()].map(({ recall }) => recall))], {
      unit: 'share',
      atLeast: 0.99
    }),
    figure('node_bytes_growth_100_to_10000', [large.node / small.node], { unit: 'ratio', atMost: 2 }),
    figure('agent_bytes_growth_100_to_10000', [large.agent / small.agent], { unit: 'ratio', atMost: 1.2 })
  ]
}

async function measure(init: OverlayInit, signal: AbortSignal): Promise<Measured> {
  const overlay = new Overlay(init)
  await overlay.start(SETTLE_MS)
  signal.throwIfAborted()
  const [nodes, agents] = [overlay.ofRole('node'), overlay.ofRole('agent')]
  const bytes = await steadyTraffic(overlay, MEASURED_MS)
  signal.throwIfAborted()
  const node = mean(nodes.map((member) => bytes.get(member) ?? 0))
  const agent = mean(agents.map((member) => (bytes.get(member) ?? 0) / Math.max(1, hears(member))))
  return { node: Math.round(node), agent: Math.round(agent), recall: await restarted(overlay) }
}

function hears({ peer }: Member): number {
  return peer?.directory.entries().filter(({ advert }) => advert.body.role === 'node').length ?? 0
}

/** Three of ten peers die at once and are started again. */
async function restarted(overlay: Overlay): Promise<number> {
  const some = overlay.members.filter((_member, index) => index % 10 < 3)
  for (const member of some) overlay.crash(member)
  await overlay.pass(DOWN_MS)
  for (const member of some) void overlay.startPeer(member)
  await overlay.pass(AFTER_RESTART_MS)
  return overlay.recall()
}

function mean(samples: readonly number[]): number {
  return samples.reduce((sum, each) => sum + each, 0) / samples.length
}

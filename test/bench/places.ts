/**
 * How well peers know where they are in the network, after how many measurements, with a fifth of liars, and what one
 * measurement costs: `npm run bench -- places`. The internet is one of chance with detours; the cost is of real peers.
 */
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { systemRandom } from '../../src/base/random.ts'
import { Measuring } from '../../src/peer/measuring.ts'
import { createPeerHost } from '../../src/peer/host.ts'
import { makeKey } from '../ticket/fixtures.ts'
import {
  estimateErrors,
  latencySpace,
  newcomerErrors,
  placed,
  quantile,
  type PlacingInit
} from '../peer/fixtures/latency-space.ts'
import { figure, type BenchContext, type Figure } from './figure.ts'

const SEEDS = [1, 2, 3, 4, 5]
const PEERS = 150
const NEIGHBOURS = 16
/** Of the bench's two peers: how long they measure each other. */
const COST_MS = 20_000

export async function places({ signal, progress }: BenchContext): Promise<readonly Figure[]> {
  const errors = (init: Omit<PlacingInit, 'neighbours'>): number[][] =>
    SEEDS.map((seed) => {
      signal.throwIfAborted()
      const space = latencySpace(PEERS, seed)
      return estimateErrors(space, placed(space, { neighbours: NEIGHBOURS, ...init }))
    })
  const medians = (all: readonly number[][]): number[] => all.map((sorted) => quantile(sorted, 0.5))
  progress(`${PEERS} peers that know ${NEIGHBOURS} others each`)
  const settled = errors({ rounds: 200 })
  const liars = {
    percent: 20,
    lie: (space: { number(max: number): number }) =>
      [
        { vector: [0, 1, 2, 3].map(() => space.number(120_000_000) - 60_000_000), height: 0, error: 0 },
        0
      ] as const
  }
  const newcomers = (samples: number): number[] =>
    SEEDS.map((seed) => {
      const space = latencySpace(PEERS, seed)
      const where = placed(space, { neighbours: NEIGHBOURS, rounds: 200 })
      const all = [...where.keys()].flatMap((newcomer) => newcomerErrors(space, where, { newcomer, samples }))
      return quantile(
        all.sort((one, other) => one - other),
        0.5
      )
    })
  progress('two peers that measure each other')
  return [
    ...[20, 60].map((rounds) =>
      figure(`rtt_error_median_after_${rounds}`, medians(errors({ rounds })), { unit: 'of the truth' })
    ),
    figure('rtt_error_median_after_200', medians(settled), { unit: 'of the truth', atMost: 0.15 }),
    figure(
      'rtt_error_p90_after_200',
      settled.map((sorted) => quantile(sorted, 0.9)),
      { unit: 'of the truth' }
    ),
    figure('rtt_error_newcomer_after_16', newcomers(16), { unit: 'of the truth' }),
    figure('rtt_error_median_20_percent_liars', medians(errors({ rounds: 200, liars })), {
      unit: 'of the truth',
      atMost: 0.2
    }),
    figure('measurement_cpu_ms', [await measurementCost(signal)], { unit: 'ms, both ends' })
  ]
}

/** Of both ends together, beside what the peers need anyway. */
async function measurementCost(signal: AbortSignal): Promise<number> {
  const idle = await cpuOf(signal, 3_600_000)
  const busy = await cpuOf(signal, 300)
  return (busy.cpuMs - idle.cpuMs) / busy.measured
}

async function cpuOf(signal: AbortSignal, intervalMs: number): Promise<{ cpuMs: number; measured: number }> {
  const peers = [makeKey(), makeKey()].map((key) => {
    const components = { clock: systemClock, logger: silentLogger, random: systemRandom }
    const host = createPeerHost(components, {
      key,
      listen: ['/ip4/127.0.0.1/tcp/0'],
      bootstrap: [],
      dhtMode: 'server'
    })
    const measuring = new Measuring(
      {
        ...components,
        host,
        remembered: { load: async () => undefined, save: async () => {} },
        addressesOf: async () => undefined
      },
      { intervalMs, sink: false }
    )
    return { host, measuring }
  })
  const [one, other] = peers
  try {
    for (const { host, measuring } of peers) {
      await host.start()
      await measuring.start()
    }
    if (one === undefined || other === undefined) throw new TypeError('two peers')
    await one.host.addAddresses(other.host.principal, other.host.multiaddrs())
    await one.host.libp2p.dial(other.host.libp2p.peerId)
    const before = { cpu: process.cpuUsage(), samples: samplesOf(peers) }
    await systemClock.sleep(COST_MS, { signal })
    const { user, system } = process.cpuUsage(before.cpu)
    return { cpuMs: (user + system) / 1000, measured: samplesOf(peers) - before.samples }
  } finally {
    for (const { host, measuring } of peers) {
      await measuring.stop()
      await host.stop()
    }
  }
}

function samplesOf(peers: readonly { readonly measuring: Measuring }[]): number {
  return peers.reduce((sum, { measuring }) => sum + measuring.samples, 0)
}

/**
 * Runs one benchmark by name: `npm run bench -- NAME [--json]`. Prints a table, or with `--json` one document `{bench,
 * machine, figures: [{name, value, unit, target, direction, met, min, max, runs}]}`; everything else goes to stderr, but for what npm
 * itself says on stdout without `--silent`. A target that is missed is a figure, not a failure.
 */
import { cpus, release, totalmem } from 'node:os'
import { SlicenetError } from '../../src/base/errors.ts'
import { sweepAndTell } from '../linux/dead-runs.ts'
import type { Bench, Figure } from './figure.ts'

const BENCHES: Readonly<Record<string, () => Promise<Bench>>> = {
  discovery: async () => (await import('./discovery.ts')).discovery,
  demo: async () => (await import('./demo.ts')).demo,
  neighbours: async () => (await import('./neighbours.ts')).neighbours,
  network: async () => (await import('./network.ts')).network,
  places: async () => (await import('./places.ts')).places,
  store: async () => (await import('./store.ts')).store,
  tickets: async () => (await import('./tickets.ts')).tickets,
  vserver: async () => (await import('./vserver.ts')).vserver
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

function machine(): Record<string, string | number> {
  const processors = cpus()
  return {
    cores: processors.length,
    processor: processors[0]?.model ?? 'unknown',
    memoryBytes: totalmem(),
    kernel: release(),
    arch: process.arch,
    node: process.versions.node
  }
}

function table(figures: readonly Figure[]): string {
  const head = ['figure', 'median', 'min', 'max', 'unit', 'runs', 'target', 'met']
  const rows = figures.map(({ name, value, min, max, unit, runs, target, direction, met }) => {
    const bound = target === null ? '-' : `${direction === 'at most' ? '≤' : '≥'} ${target}`
    return [name, value, min, max, unit, runs, bound, met ?? '-'].map(String)
  })
  const widths = head.map((_title, column) => Math.max(...[head, ...rows].map((row) => row[column]!.length)))
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd()
    )
    .join('\n')
}

async function main(words: readonly string[]): Promise<number> {
  const [name = '', ...rest] = words.filter((word) => word !== '--json')
  const load = Object.hasOwn(BENCHES, name) ? BENCHES[name] : undefined
  if (load === undefined || rest.length > 0) {
    process.stderr.write(
      `usage: npm run bench -- NAME [--json], where NAME is one of ${Object.keys(BENCHES).join(', ')}\n`
    )
    return 2
  }
  await sweepAndTell()
  const controller = new AbortController()
  for (const signal of SIGNALS) {
    process.on(signal, () =>
      controller.abort(new SlicenetError('INTERRUPTED', `interrupted by ${signal}, all is cleared up`))
    )
  }
  const bench = await load()
  const figures = await bench({
    signal: controller.signal,
    progress: (message) => void process.stderr.write(`${message}\n`)
  })
  const document = { bench: name, machine: machine(), figures }
  process.stdout.write(
    words.includes('--json') ? `${JSON.stringify(document, null, 2)}\n` : `${table(figures)}\n`
  )
  return 0
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  const isInterrupt = error instanceof SlicenetError && error.code === 'INTERRUPTED'
  const said = error instanceof Error ? (isInterrupt ? error.message : error.stack) : undefined
  process.stderr.write(`${said ?? String(error)}\n`)
  process.exitCode = isInterrupt ? 130 : 1
}

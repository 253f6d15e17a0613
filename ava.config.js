/** How the tests are run: see https://github.com/avajs/ava/blob/main/docs/06-configuration.md. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { sweepAndTell } from './test/linux/dead-runs.ts'
import { reportingArguments, watchWorkers } from './test/worker-watch.ts'

/** Begun first: as the last of all it would go on alone for a minute, while a processor has nothing to do. */
const FIRST = join(import.meta.dirname, 'test/linux/vm/escape.test.ts')

const REPORTS = join(import.meta.dirname, 'node_modules/.cache/reports')
mkdirSync(REPORTS, { recursive: true })
// Nightly runs have files that take hours.
if (process.env.SLICENET_NIGHTLY === undefined) watchWorkers({ limitMs: 12 * 60_000, reports: REPORTS })
await sweepAndTell()

export default {
  extensions: ['ts'],
  files: ['test/**/*.test.ts'],
  timeout: '3m',
  workerThreads: false,
  nodeArguments: reportingArguments(REPORTS),
  sortTestFiles: (one, other) => Number(other === FIRST) - Number(one === FIRST),
  // Most files load hundreds of modules, and nearly all the same ones.
  environmentVariables: { NODE_COMPILE_CACHE: join(import.meta.dirname, 'node_modules/.cache/compiled') }
}

/** How the tests are run: see https://github.com/avajs/ava/blob/main/docs/06-configuration.md. */
import { join } from 'node:path'

/** Begun first: what takes minutes would else go on alone at the end, while a processor has nothing to do. */
const LONGEST = ['linux/crash/kill', 'linux/vm/escape'].map((name) =>
  join(import.meta.dirname, `test/${name}.test.ts`)
)

function rank(file) {
  const index = LONGEST.indexOf(file)
  return index === -1 ? LONGEST.length : index
}

export default {
  extensions: ['ts'],
  files: ['test/**/*.test.ts'],
  timeout: '3m',
  workerThreads: false,
  sortTestFiles: (one, other) => rank(one) - rank(other),
  // Most files load hundreds of modules, and nearly all the same ones.
  environmentVariables: { NODE_COMPILE_CACHE: join(import.meta.dirname, 'node_modules/.cache/compiled') }
}

/** How the tests are run: see https://github.com/avajs/ava/blob/main/docs/06-configuration.md. */
import { join } from 'node:path'

/** Begun first: as the last of all it would go on alone for a minute, while a processor has nothing to do. */
const FIRST = join(import.meta.dirname, 'test/linux/vm/escape.test.ts')

export default {
  extensions: ['ts'],
  files: ['test/**/*.test.ts'],
  timeout: '3m',
  workerThreads: false,
  sortTestFiles: (one, other) => Number(other === FIRST) - Number(one === FIRST),
  // Most files load hundreds of modules, and nearly all the same ones.
  environmentVariables: { NODE_COMPILE_CACHE: join(import.meta.dirname, 'node_modules/.cache/compiled') }
}

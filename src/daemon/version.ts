/** The version of this program, from its package. */
import { readFileSync } from 'node:fs'

/** `src/daemon` and `dist/daemon` lie equally deep below the package. */
const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  readonly version: string
}

export const VERSION = manifest.version

/**
 * The file of peers that this peer was connected to, so that it rejoins the overlay after a restart even when every
 * bootstrap peer is gone. It holds hints only: a damaged file is passed over.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { principalSchema, type Principal } from '../ticket/principal.ts'

const peerSchema = v.object({
  principal: principalSchema,
  multiaddrs: v.pipe(v.array(v.pipe(v.string(), v.maxLength(256))), v.maxLength(16))
})
const fileSchema = v.object({ version: v.literal(1), peers: v.array(peerSchema) })

export interface KnownPeer {
  readonly principal: Principal
  readonly multiaddrs: readonly string[]
}

export class KnownPeers {
  readonly #logger: Logger
  readonly #file: string | undefined
  #peers: readonly KnownPeer[] = []
  #saved = ''

  /** Without a `file` nothing outlives the process. */
  constructor(components: { readonly logger: Logger }, init: { readonly file: string | undefined }) {
    this.#logger = components.logger
    this.#file = init.file
  }

  /** The most recently connected first. */
  list(): readonly KnownPeer[] {
    return this.#peers
  }

  async load(): Promise<void> {
    if (this.#file === undefined) return
    try {
      const text = await readFile(this.#file, 'utf8')
      this.#peers = v.parse(fileSchema, JSON.parse(text)).peers.slice(0, LIMITS.knownPeersMax)
      this.#saved = text
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      this.#logger.warn('the file of known peers is of no use', { file: this.#file, error })
    }
  }

  /** Puts `connected` before those known already and writes the file if that changed it. */
  async remember(connected: readonly KnownPeer[]): Promise<void> {
    const now = new Set(connected.map(({ principal }) => principal))
    this.#peers = [...connected, ...this.#peers.filter(({ principal }) => !now.has(principal))]
      .slice(0, LIMITS.knownPeersMax)
      .map(({ principal, multiaddrs }) => ({ principal, multiaddrs: multiaddrs.slice(0, 16) }))
    if (this.#file === undefined) return
    const text = `${JSON.stringify({ version: 1, peers: this.#peers }, undefined, 1)}\n`
    if (text === this.#saved) return
    await mkdir(dirname(this.#file), { recursive: true, mode: 0o700 })
    await writeFile(`${this.#file}.new`, text, { mode: 0o600 })
    await rename(`${this.#file}.new`, this.#file)
    this.#saved = text
  }
}

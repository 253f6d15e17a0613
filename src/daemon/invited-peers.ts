/**
 * Where the peers are that invites named, kept in a file of the state directory: they are joined by in addition to the
 * bootstrap peers of the configuration. It holds hints only: a damaged file is passed over.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { SlicenetError } from '../base/errors.ts'
import { peerAddressSchema } from '../ticket/invite.ts'

const fileSchema = v.object({ version: v.literal(1), addresses: v.array(peerAddressSchema) })

export class InvitedPeers {
  readonly #logger: Logger
  readonly #directory: string
  readonly #file: string
  #addresses: readonly string[] = []

  constructor(components: { readonly logger: Logger }, init: { readonly stateDirectory: string }) {
    this.#logger = components.logger
    this.#directory = init.stateDirectory
    this.#file = join(init.stateDirectory, 'invited-peers.json')
  }

  async load(): Promise<void> {
    try {
      const { addresses } = v.parse(fileSchema, JSON.parse(await readFile(this.#file, 'utf8')))
      this.#addresses = addresses.slice(0, LIMITS.invitedPeersMax)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      this.#logger.warn('the file of invited peers is of no use', { file: this.#file, error })
    }
  }

  /** Multiaddrs that end in their peers, those of the last invite first. */
  list(): readonly string[] {
    return this.#addresses
  }

  /** Puts addresses before those known; they are on disk when this resolves. Throws `STORE_FAILED`. */
  async add(addresses: readonly string[]): Promise<void> {
    const all = [...new Set([...addresses, ...this.#addresses])].slice(0, LIMITS.invitedPeersMax)
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 })
      const text = `${JSON.stringify({ version: 1, addresses: all }, undefined, 1)}\n`
      await writeFile(`${this.#file}.new`, text, { mode: 0o600, flush: true })
      await rename(`${this.#file}.new`, this.#file)
    } catch (error) {
      throw new SlicenetError('STORE_FAILED', `${this.#file} cannot be written`, { cause: error })
    }
    this.#addresses = all
  }
}

/** Keeps the proofs of fraud that a peer knows in its store, so that it knows them after a restart. */
import type { Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import { proofKey } from '../peer/proof-table.ts'
import type { Proofs } from '../peer/proofs.ts'
import type { Entry, Store } from '../store/store.ts'
import type { FraudBundle } from '../ticket/fraud-bundle.ts'

export interface ProofKeeperComponents {
  readonly store: Store
  readonly proofs: Proofs
  readonly logger: Logger
}

/** Bundles by kind and accused. */
const PROOFS = 'proofs'

export class ProofKeeper implements Startable {
  readonly #components: ProofKeeperComponents
  #forget: (() => void) | undefined
  #writing: Promise<void> = Promise.resolve()

  constructor(components: ProofKeeperComponents) {
    this.#components = components
  }

  /** Loads what was kept, and drops what is not good any more. */
  async start(): Promise<void> {
    if (this.#forget !== undefined) return
    const { store, proofs } = this.#components
    const over: Entry[] = []
    for await (const [key, bytes] of store.iterate(PROOFS)) {
      if (!proofs.load(bytes)) over.push({ table: PROOFS, key, value: null })
    }
    if (over.length > 0) await store.commit(over)
    this.#forget = proofs.on('new', (bundle) => {
      this.#writing = this.#writing.then(async () => this.#keep(bundle))
    })
  }

  async stop(): Promise<void> {
    this.#forget?.()
    this.#forget = undefined
    await this.#writing
  }

  /** With those that the table has room for no longer taken out: the store holds what the table does. */
  async #keep({ finding, bytes }: FraudBundle): Promise<void> {
    const { store, proofs, logger } = this.#components
    try {
      const known = new Set(proofs.all().map((bundle) => proofKey(bundle.finding)))
      const entries: Entry[] = [{ table: PROOFS, key: proofKey(finding), value: bytes }]
      for await (const [key] of store.iterate(PROOFS)) {
        if (!known.has(key)) entries.push({ table: PROOFS, key, value: null })
      }
      await store.commit(entries)
    } catch (error) {
      // It is known all the same, and others know it.
      logger.warn('a proof could not be kept', { error })
    }
  }
}

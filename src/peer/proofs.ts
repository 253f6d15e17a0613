/**
 * Proofs of fraud on their way through the overlay: what this peer knows, and the telling of what is found here. Small
 * ones go out by gossip, others to the peers at hand; whoever was not reached fetches them.
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { directoryProtocol } from '../protocol/directory-protocol.ts'
import type { FraudBundle } from '../ticket/fraud-bundle.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Gossip } from './gossip.ts'
import type { DirectoryHost } from './overlay.ts'
import type { ProofTable } from './proof-table.ts'
import { PROOFS_TOPIC } from './topics.ts'

export interface Proofs {
  /** Keeps a proof and tells others of it. Does nothing more when it is known already; that nobody listens is no error. */
  publish(bundle: FraudBundle): Promise<void>
  /** Keeps a proof from this peer's own disk. Gives whether it is still good. */
  load(bytes: Uint8Array): boolean
  /** What is proven of a principal. */
  has(principal: Principal): FraudBundle[]
  all(): FraudBundle[]
  /** Calls the listener with each proof that is new, until the function given back is called. */
  on(event: 'new', listener: (bundle: FraudBundle) => void): () => void
}

export interface ProofsComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly host: Pick<DirectoryHost, 'caller'>
  readonly gossip: Gossip
  readonly table: ProofTable
  /** Peers at hand. */
  readonly partners: () => readonly Principal[]
}

/** Peers that a proof too large for gossip is given to at once. */
const GIVEN_TO_MAX = 8
const GIVE_MS = 20_000

export function createProofs(components: ProofsComponents): Proofs {
  const { clock, logger, host, gossip, table, partners } = components
  const give = async (peer: Principal, { bytes }: FraudBundle): Promise<void> => {
    try {
      const call = host.caller(directoryProtocol, peer)
      await call('giveProof', { bundle: bytes }, { signal: clock.timeout(GIVE_MS) })
    } catch (error) {
      logger.debug('a peer did not take a proof', { peer, error })
    }
  }
  return {
    async publish(bundle) {
      if (table.offer(bundle.bytes) !== 'new') return
      const isSmall = bundle.bytes.length <= LIMITS.gossipedProofBytesMax
      const heard = isSmall ? await gossip.publish(PROOFS_TOPIC, bundle.bytes) : 0
      if (heard > 0) return
      await Promise.all(
        partners()
          .slice(0, GIVEN_TO_MAX)
          .map(async (peer) => give(peer, bundle))
      )
    },
    load: (bytes) => table.offer(bytes) === 'new',
    has: (principal) => table.all().filter(({ finding }) => finding.accused === principal),
    all: () => table.all(),
    on: (_event, listener) => table.on(listener)
  }
}

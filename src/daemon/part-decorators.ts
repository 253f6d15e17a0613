/**
 * Where one who runs a daemon may stand between it and its parts: each function is given a part as the daemon made it, and
 * gives the one that is used. Tests come in here that stop or fail a daemon in the middle of a step; the program gives
 * none.
 */
import type { Enforcer } from '../enforce/enforcer.ts'
import type { VserverNetwork } from '../enforce/network.ts'
import type { nodeProtocol } from '../protocol/node-protocol.ts'
import type { Handlers } from '../protocol/method.ts'
import type { Disk } from '../store/disk.ts'
import type { Store } from '../store/store.ts'

export interface PartDecorators {
  /** What the store writes through. */
  readonly disk?: (disk: Disk) => Disk
  readonly store?: (store: Store) => Store
  readonly network?: (network: VserverNetwork) => VserverNetwork
  readonly enforcer?: (enforcer: Enforcer) => Enforcer
  /** What the node answers to peers. */
  readonly nodeHandlers?: (
    handlers: Handlers<typeof nodeProtocol.methods>
  ) => Handlers<typeof nodeProtocol.methods>
}

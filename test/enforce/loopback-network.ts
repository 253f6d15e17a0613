/** A network without links, for tests of what the vserver backend does by itself: it notes who is attached. */
import { SlicenetError } from '../../src/base/errors.ts'
import type { VserverLink, VserverNetwork } from '../../src/enforce/network.ts'

export class LoopbackNetwork implements VserverNetwork {
  readonly links = new Map<string, VserverLink>()
  /** Makes the next `attach` fail, as a port that another owns would. */
  refuseNext = false

  async start(): Promise<void> {}

  async stop(): Promise<void> {}

  async attach(link: VserverLink): Promise<{ readonly address: string }> {
    if (this.refuseNext) {
      this.refuseNext = false
      throw new SlicenetError('PORT_IN_USE', 'the port is owned by another lease')
    }
    this.links.set(link.id, link)
    return { address: '127.0.0.1' }
  }

  async detach(id: string): Promise<void> {
    this.links.delete(id)
  }

  async list(): Promise<string[]> {
    return [...this.links.keys()]
  }

  async egressBytes(): Promise<number> {
    return 0
  }
}

/** A network without links, for tests of what the vserver backend does by itself: it notes who is attached. */
import { SlicenetError } from '../../src/base/errors.ts'
import type { NetworkUser, VserverLink, VserverNetwork } from '../../src/enforce/network.ts'
import { portsOverlap } from '../../src/ticket/ports.ts'

export class LoopbackNetwork implements VserverNetwork {
  readonly links = new Map<string, VserverLink>()
  readonly users = new Map<string, NetworkUser>()
  /** Ids whose bytes of the day run out. */
  readonly narrowed = new Set<string>()
  /** How many of the next calls fail. */
  attachesToFail = 0

  async start(): Promise<void> {}

  async stop(): Promise<void> {}

  async attach(link: VserverLink): Promise<{ readonly address: string }> {
    if (this.attachesToFail-- > 0) throw new SlicenetError('HOST_PROGRAM_FAILED', 'attach was to fail')
    for (const other of this.links.values()) {
      if (other.id === link.id || !portsOverlap(other.ports, link.ports)) continue
      throw new SlicenetError('PORT_IN_USE', `a port is owned by vserver ${other.id}`)
    }
    this.links.set(link.id, link)
    return { address: '127.0.0.1' }
  }

  async attachIds(user: NetworkUser): Promise<{ readonly address: string }> {
    if (this.attachesToFail-- > 0) throw new SlicenetError('HOST_PROGRAM_FAILED', 'attach was to fail')
    this.users.set(user.id, user)
    return { address: '127.0.0.1' }
  }

  async rename(id: string, to: string): Promise<void> {
    const link = this.links.get(id)
    if (link === undefined) throw new SlicenetError('NOT_FOUND', `no vserver ${id} is attached`)
    this.links.delete(id)
    this.links.set(to, { ...link, id: to })
  }

  async detach(id: string): Promise<void> {
    this.links.delete(id)
    this.users.delete(id)
  }

  async list(): Promise<string[]> {
    return [...this.links.keys(), ...this.users.keys()]
  }

  async egressBytes(): Promise<number> {
    return 0
  }

  async isEgressNarrowed(id: string): Promise<boolean> {
    return this.narrowed.has(id)
  }

  async dropped(): Promise<Record<string, number>> {
    return {}
  }
}

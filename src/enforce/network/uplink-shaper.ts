/** What is shaped on one uplink: its root, the node's own class and a class for each vserver, for as long as its network runs. */
import { SlicenetError } from '../../base/errors.ts'
import { planLink } from './address-plan.ts'
import type { ShapingPolicy } from './rates.ts'
import {
  changeRates,
  installShaping,
  queueDrops,
  requireUnshaped,
  sentBytes,
  shapeLinks,
  unshapeLink,
  type LeafQueue,
  type ShapedLink,
  type ShapingInit
} from './shaping.ts'

export interface UplinkShaperInit {
  /** What the uplink is called until it is started, which it is once it is there. */
  readonly name: string
  readonly rootBps: number
  readonly nodeBps: number
  readonly policy: ShapingPolicy
}

export class UplinkShaper {
  readonly #init: UplinkShaperInit
  #device = ''
  #leaf: LeafQueue = 'bfifo'

  constructor(init: UplinkShaperInit) {
    this.#init = init
  }

  /** The uplink's, once started; empty before. */
  get device(): string {
    return this.#device
  }

  /** Puts the root in place and leaves the vservers' classes as they are. */
  async start(device: string): Promise<void> {
    await this.#install(device)
  }

  /** Puts the classes of these in place and removes all others. */
  async shapeOnly(links: readonly ShapedLink[]): Promise<void> {
    const indexes = new Set(links.map(({ plan }) => plan.index))
    for (const index of (await this.sentBytes()).keys()) {
      if (!indexes.has(index)) await this.unshape(index)
    }
    await shapeLinks(this.#shaping(), links)
  }

  /**
   * Shapes another device from now on, which may be of the same name, for these vservers alone; the one before is left as it is. Throws
   * `CONFIG_INVALID` where another program shapes it.
   */
  async move(device: string, links: readonly ShapedLink[]): Promise<void> {
    const before = this.#device
    await requireUnshaped(device)
    try {
      await this.#install(device)
      // One that comes late may have classes of a daemon before.
      await this.shapeOnly(links)
    } catch (error) {
      this.#device = before
      throw error
    }
  }

  /** Throws `VSERVER_FAILED` when what is guaranteed to all would be more than there is. `takenBps`: to the others. */
  requireRoom(wantedBps: number, takenBps: number): void {
    const { rootBps, nodeBps } = this.#init
    const roomBps = Math.max(0, rootBps - nodeBps)
    if (takenBps + wantedBps <= roomBps) return
    const uplink = this.#device === '' ? this.#init.name : this.#device
    throw new SlicenetError(
      'VSERVER_FAILED',
      `${wantedBps} bits a second cannot be guaranteed: of ${roomBps} that the uplink ${uplink} has beside the node's own, ${takenBps} are`,
      { details: { uplink, wantedBps, guaranteedBps: takenBps, roomBps } }
    )
  }

  /** Gives a vserver its classes, or changes their rates while traffic flows. */
  async shape(link: ShapedLink): Promise<void> {
    await shapeLinks(this.#shaping(), [link])
  }

  /** Changes the rates of one that has its classes. */
  async changeRates(link: ShapedLink): Promise<void> {
    await changeRates(this.#shaping(), [link])
  }

  /** Removes a vserver's classes, whichever there are. */
  async unshape(index: number): Promise<void> {
    if (this.#device !== '') await unshapeLink(this.#device, planLink(index))
  }

  /** By the link's number. */
  async sentBytes(): Promise<Map<number, number>> {
    return sentBytes(this.#device)
  }

  /** As `sentBytes`. */
  async queueDrops(): Promise<Map<number, number>> {
    return queueDrops(this.#device)
  }

  async #install(device: string): Promise<void> {
    this.#device = device
    this.#leaf = await installShaping(this.#shaping())
  }

  #shaping(): ShapingInit & { readonly leaf: LeafQueue } {
    return { uplink: this.#device, ...this.#init, leaf: this.#leaf }
  }
}

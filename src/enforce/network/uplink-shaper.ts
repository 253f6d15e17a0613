/**
 * All that is shaped on a node's uplink, for as long as its network runs: which classes there are, what each vserver sent
 * through them, and the caps that its daily budget leaves it.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import { SlicenetError } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { Resources } from '../../ticket/resources.ts'
import { planLink } from './address-plan.ts'
import { BudgetKeeper } from './budget-keeper.ts'
import { shapedLink } from './link-lines.ts'
import type { LinkRecord } from './link-records.ts'
import type { ShapingPolicy } from './rates.ts'
import {
  changeRates,
  installShaping,
  removeShaping,
  sentBytes,
  shapeLinks,
  unshapeLink,
  type LeafQueue,
  type ShapedLink,
  type ShapingInit
} from './shaping.ts'

export interface UplinkShaperComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly records: () => Iterable<LinkRecord>
  /** Runs a task when no other is at work on that vserver. */
  readonly inOrder: (id: string, task: () => Promise<void>) => Promise<void>
}

export interface UplinkShaperInit {
  readonly rootBps: number
  readonly nodeBps: number
  readonly policy: ShapingPolicy
  readonly stateDirectory: string
  readonly budgetIntervalMs: number | undefined
}

export class UplinkShaper {
  readonly #components: UplinkShaperComponents
  readonly #init: UplinkShaperInit
  readonly #budgetFile: string
  readonly #budgets: BudgetKeeper
  #device = ''
  #leaf: LeafQueue = 'bfifo'
  #reading: Promise<Map<number, number>> | undefined

  constructor(components: UplinkShaperComponents, init: UplinkShaperInit) {
    const { clock, logger, records, inOrder } = components
    this.#components = components
    this.#init = init
    this.#budgetFile = join(init.stateDirectory, 'egress.json')
    this.#budgets = new BudgetKeeper(
      {
        clock,
        logger,
        records,
        sentBytes: async () => this.#sentBytes(),
        change: async (id) => inOrder(id, () => this.#changeRates(id))
      },
      {
        file: this.#budgetFile,
        rootBps: init.rootBps,
        ...(init.budgetIntervalMs === undefined ? {} : { intervalMs: init.budgetIntervalMs })
      }
    )
  }

  /** Puts the root in place, and the classes of these alone. */
  async start(device: string, records: readonly LinkRecord[]): Promise<void> {
    this.#device = device
    this.#leaf = await installShaping(this.#shaping())
    const left = await sentBytes(device)
    const indexes = new Set(records.map(({ index }) => index))
    for (const index of left.keys()) {
      if (!indexes.has(index)) await unshapeLink(device, planLink(index))
    }
    await this.#budgets.open(records, left)
    await shapeLinks(
      this.#shaping(),
      records.map((record) => this.#shaped(record))
    )
  }

  /** Shapes another device instead, which may be of the same name. */
  async move(device: string, records: readonly LinkRecord[]): Promise<void> {
    const before = this.#device
    this.#device = device
    try {
      await installShaping(this.#shaping())
      await shapeLinks(
        this.#shaping(),
        records.map((record) => this.#shaped(record))
      )
    } catch (error) {
      this.#device = before
      throw error
    }
    if (before !== device) await removeShaping(before)
  }

  /** Classes and queues stay. */
  async stop(): Promise<void> {
    await this.#budgets.close()
  }

  /** Throws `VSERVER_FAILED` when what is guaranteed to all would be more than there is. */
  requireRoom(id: string, { egressBps }: Resources): void {
    const { rootBps, nodeBps } = this.#init
    const others = [...this.#components.records()].filter((record) => record.id !== id)
    const taken = others.reduce((sum, { resources }) => sum + resources.egressBps, 0)
    const roomBps = Math.max(0, rootBps - nodeBps)
    if (taken + egressBps <= roomBps) return
    throw new SlicenetError(
      'VSERVER_FAILED',
      `${egressBps} bits a second cannot be guaranteed: of ${roomBps} that the uplink has beside the node's own, ${taken} are`,
      { details: { wantedBps: egressBps, guaranteedBps: taken, roomBps } }
    )
  }

  /** Gives a vserver its classes, or changes their rates while traffic flows. */
  async shape(record: LinkRecord): Promise<void> {
    await shapeLinks(this.#shaping(), [this.#shaped(record)])
  }

  /** Removes a vserver's classes, whichever there are. */
  async unshape(index: number): Promise<void> {
    await unshapeLink(this.#device, planLink(index))
  }

  /** All that is remembered of it. */
  forget(id: string): void {
    this.#budgets.forget(id)
  }

  rename(id: string, to: string): void {
    this.#budgets.rename(id, to)
  }

  async sentBytes({ index }: LinkRecord): Promise<number> {
    return (await this.#sentBytes()).get(index) ?? 0
  }

  /** Whether the bytes that it may send in a day run out. */
  isNarrowed(record: LinkRecord): boolean {
    return this.#budgets.isRunningOut(record)
  }

  /** Takes all of it away. */
  async remove(): Promise<void> {
    await this.stop()
    await removeShaping(this.#device)
    await rm(this.#budgetFile, { force: true })
  }

  /** One reading serves all who ask meanwhile: it lists every class. */
  async #sentBytes(): Promise<Map<number, number>> {
    this.#reading ??= sentBytes(this.#device).finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  async #changeRates(id: string): Promise<void> {
    const record = [...this.#components.records()].find((each) => each.id === id)
    if (record !== undefined) await changeRates(this.#shaping(), [this.#shaped(record)])
  }

  #shaped(record: LinkRecord): ShapedLink {
    const narrowedBps = this.#budgets.narrowedBps(record)
    return { ...shapedLink(record), ...(narrowedBps === undefined ? {} : { narrowedBps }) }
  }

  #shaping(): ShapingInit & { readonly leaf: LeafQueue } {
    const { rootBps, nodeBps, policy } = this.#init
    return { uplink: this.#device, rootBps, nodeBps, policy, leaf: this.#leaf }
  }
}

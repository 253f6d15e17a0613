/**
 * The uplinks of a node, for as long as its network runs: what each is now, a tree of classes on each, and for every vserver
 * what it sent and may send by all of them together.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import { asSlicenetError, SlicenetError } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import { together } from '../../base/together.ts'
import type { Resources } from '../../ticket/resources.ts'
import { planLink } from './address-plan.ts'
import { BudgetKeeper, type SentBytes } from './budget-keeper.ts'
import { shapedLink } from './link-lines.ts'
import type { LinkRecord } from './link-records.ts'
import type { ShapingPolicy } from './rates.ts'
import { requireUnshaped, type ShapedLink } from './shaping.ts'
import { SharedCaps, type Capped } from './shared-cap.ts'
import { forgetMoved, forgetThrough } from './tracked-flows.ts'
import { strictlyFiltered, UplinkRoutes } from './uplink-routes.ts'
import { UplinkShaper } from './uplink-shaper.ts'
import { UplinkWatch } from './uplink-watch.ts'
import {
  findUplink,
  findUplinks,
  isPresent,
  requireDistinct,
  type Uplink,
  type UplinkInit
} from './uplink.ts'
import { hearRouters } from './uplink6.ts'

export interface UplinksComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly records: () => Iterable<LinkRecord>
  /** Runs a task when no other is at work on that vserver. */
  readonly inOrder: (id: string, task: () => Promise<void>) => Promise<void>
  /** Puts the rules in place for these uplinks while no link is being changed, and then does the rest. */
  readonly renew: (uplinks: readonly Uplink[], rest: () => Promise<void>) => Promise<void>
}

export interface UplinksInit {
  readonly uplinks: readonly UplinkInit[]
  readonly policy: ShapingPolicy
  readonly stateDirectory: string
  readonly budgetIntervalMs: number | undefined
}

/** An IPv6 address of theirs, where any has one: whether vservers have IPv6. */
export function familyOf(uplinks: readonly Pick<Uplink, 'address6'>[]): string | undefined {
  return uplinks.find(({ address6 }) => address6 !== undefined)?.address6
}

export class Uplinks {
  readonly #components: UplinksComponents
  readonly #inits: readonly UplinkInit[]
  readonly #shapers: readonly UplinkShaper[]
  readonly #watches: readonly UplinkWatch[]
  readonly #budgetFile: string
  readonly #budgets: BudgetKeeper
  readonly #caps: SharedCaps
  readonly #routes = [new UplinkRoutes('ipv4'), new UplinkRoutes('ipv6')]
  /** What was said last, so that it is said once. */
  #routesTrouble: string | undefined
  #current: readonly Uplink[] = []
  #reading: Promise<SentBytes> | undefined

  /** Throws `CONFIG_INVALID` when there is none. */
  constructor(components: UplinksComponents, init: UplinksInit) {
    if (init.uplinks.length === 0) throw new SlicenetError('CONFIG_INVALID', 'the node has no uplink')
    const { clock, logger, records, inOrder } = components
    this.#components = components
    this.#inits = init.uplinks
    this.#shapers = init.uplinks.map(
      ({ rootBps, nodeBps }) => new UplinkShaper({ rootBps, nodeBps, policy: init.policy })
    )
    this.#watches = init.uplinks.map(
      (uplink, at) =>
        new UplinkWatch({
          logger,
          find: async () => findUplink(uplink, this.#current[at]?.address6),
          renew: async (found) => this.#replace(at, found)
        })
    )
    this.#caps = new SharedCaps({ rootBps: this.#rootBps, policy: init.policy })
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
        rootBps: this.#rootBps,
        ...(init.budgetIntervalMs === undefined ? {} : { intervalMs: init.budgetIntervalMs })
      }
    )
  }

  /** In the order of the configuration, as they are now, or were last. Empty unless opened. */
  get current(): readonly Uplink[] {
    return this.#current
  }

  get devices(): readonly string[] {
    return this.#current.map(({ device }) => device)
  }

  /** The same, those that are there first. */
  get thereFirst(): readonly Uplink[] {
    const there = this.#current.filter((_, at) => !this.#isAway(at))
    const away = this.#current.filter((_, at) => this.#isAway(at))
    return [...there, ...away]
  }

  /** As `familyOf`. */
  get address6(): string | undefined {
    return familyOf(this.#current)
  }

  /** What fits through each. */
  get mtu(): number {
    return Math.min(...this.#current.map(({ mtu }) => mtu))
  }

  /** What they are now. Throws `CONFIG_INVALID`, also where another program shapes one. */
  async find(): Promise<readonly Uplink[]> {
    const uplinks = await findUplinks(this.#inits)
    for (const { device } of uplinks) await requireUnshaped(device)
    for (const [at, { device }] of uplinks.entries()) await hearRouters(device, this.#inits[at]?.address6)
    return uplinks
  }

  /** Shapes all of them, for these vservers alone. */
  async startShaping(uplinks: readonly Uplink[], records: readonly LinkRecord[]): Promise<void> {
    for (const [at, { device }] of uplinks.entries()) await this.#shapers[at]?.start(device)
    await this.#budgets.open(records, await this.#sentBytes())
    const links = records.map((record) => this.#shaped(record))
    for (const shaper of this.#shapers) await shaper.shapeOnly(links)
    await this.#caps.lay(uplinks, this.#capped(records))
  }

  /** From here on they are current. */
  async open(uplinks: readonly Uplink[]): Promise<void> {
    for (const routes of this.#routes) await routes.remove(uplinks.length > 1 ? uplinks.length : 0)
    const filtered = uplinks.length > 1 ? await strictlyFiltered(uplinks) : []
    if (filtered.length > 0) {
      this.#components.logger.warn(
        'the kernel drops what comes in by these uplinks from where it would not send',
        { uplinks: filtered, hint: 'set net.ipv4.conf.*.rp_filter to 2' }
      )
    }
    this.#current = uplinks
    await this.#route()
  }

  close(): void {
    this.#current = []
  }

  /** Classes and queues stay. */
  async stop(): Promise<void> {
    await this.#budgets.close()
  }

  /** Notices what has become of each; one that is away holds up no other. */
  async look(): Promise<void> {
    for (const [at, watch] of this.#watches.entries()) {
      const known = this.#current[at]
      if (known !== undefined) await watch.look(known)
    }
    await this.#route()
  }

  /** Throws `VSERVER_FAILED` when what is guaranteed to all would be more than one of them has. */
  requireRoom(id: string, { egressBps }: Resources): void {
    const others = [...this.#components.records()].filter((record) => record.id !== id)
    const taken = others.reduce((sum, { resources }) => sum + resources.egressBps, 0)
    for (const shaper of this.#shapers) shaper.requireRoom(egressBps, taken)
  }

  /** Gives a vserver its classes, or changes their rates while traffic flows. */
  async shape(record: LinkRecord): Promise<void> {
    const shaped = this.#shaped(record)
    await this.#onEach((shaper) => shaper.shape(shaped))
    await this.#caps.set({ ids: record.ids, shaped })
  }

  /** Removes a vserver's classes, whichever there are. */
  async unshape(index: number): Promise<void> {
    await Promise.all(this.#shapers.map((shaper) => shaper.unshape(index)))
    await this.#caps.unset(index)
  }

  /** All that is remembered of it. */
  forget(id: string): void {
    this.#budgets.forget(id)
  }

  rename(id: string, to: string): void {
    this.#budgets.rename(id, to)
  }

  /** By all uplinks together. */
  async sentBytes({ index }: LinkRecord): Promise<number> {
    const sent = [...(await this.#sentBytes()).values()]
    return sent.reduce((sum, ofUplink) => sum + (ofUplink.get(index) ?? 0), 0)
  }

  /** Whether the bytes that it may send in a day run out. */
  isNarrowed(record: LinkRecord): boolean {
    return this.#budgets.isRunningOut(record)
  }

  /** Takes all of it away. */
  async remove(): Promise<void> {
    await this.stop()
    await this.#caps.remove()
    for (const routes of this.#routes) await routes.remove()
    for (const shaper of this.#shapers) await shaper.remove()
    await rm(this.#budgetFile, { force: true })
    this.close()
  }

  get #rootBps(): number {
    return this.#inits.reduce((sum, { rootBps }) => sum + rootBps, 0)
  }

  /** A connection stays on its uplink; where that leads nowhere any more, it is forgotten, so that it begins anew by another. */
  async #route(): Promise<void> {
    const { logger, records } = this.#components
    try {
      for (const routes of this.#routes) {
        for (const { device, address } of await routes.look(this.#current)) {
          logger.warn('an uplink leads nowhere; its connections are forgotten', { uplink: device, address })
          const plans = [...records()].map(({ index }) => planLink(index))
          await forgetThrough(plans, address)
        }
      }
      this.#routesTrouble = undefined
    } catch (error) {
      const { message } = asSlicenetError(error)
      if (message !== this.#routesTrouble)
        logger.error('what comes in by an uplink may be answered by another', { error })
      this.#routesTrouble = message
    }
  }

  /** One uplink is another device or has another address. */
  async #replace(at: number, uplink: Uplink): Promise<void> {
    const before = this.#current[at]
    const uplinks = this.#current.with(at, uplink)
    requireDistinct(uplinks)
    await requireUnshaped(uplink.device)
    await hearRouters(uplink.device, this.#inits[at]?.address6)
    await this.#components.renew(uplinks, async () => {
      const records = [...this.#components.records()]
      await this.#shapers[at]?.move(
        uplink.device,
        records.map((record) => this.#shaped(record))
      )
      await this.#caps.lay(uplinks, this.#capped(records))
      this.#current = uplinks
      const plans = records.map(({ index }) => planLink(index))
      await forgetMoved(plans, before, uplink)
    })
  }

  #isAway(at: number): boolean {
    return this.#watches[at]?.isAway ?? false
  }

  /** On every uplink; those that are not there, which are seen to when they are back, are passed over where there is another. */
  async #onEach(task: (shaper: UplinkShaper) => Promise<void>): Promise<void> {
    const tasks = this.#shapers.map(async (shaper, at) => {
      try {
        await task(shaper)
        return true
      } catch (error) {
        const isThere = !this.#isAway(at) && (await isPresent(shaper.device))
        if (this.#shapers.length === 1 || isThere) throw error
        return false
      }
    })
    if ((await together(tasks)).includes(true)) return
    throw new SlicenetError('VSERVER_FAILED', 'none of the node’s uplinks is there')
  }

  /** One reading serves all who ask meanwhile: it lists every class. */
  async #sentBytes(): Promise<SentBytes> {
    this.#reading ??= this.#readSentBytes().finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  async #readSentBytes(): Promise<SentBytes> {
    const sent = new Map<string, ReadonlyMap<number, number>>()
    await this.#onEach(async (shaper) => {
      sent.set(shaper.device, await shaper.sentBytes())
    })
    return sent
  }

  async #changeRates(id: string): Promise<void> {
    const record = [...this.#components.records()].find((each) => each.id === id)
    if (record === undefined) return
    const shaped = this.#shaped(record)
    await this.#onEach((shaper) => shaper.changeRates(shaped))
    await this.#caps.set({ ids: record.ids, shaped })
  }

  #shaped(record: LinkRecord): ShapedLink {
    const narrowedBps = this.#budgets.narrowedBps(record)
    return { ...shapedLink(record), ...(narrowedBps === undefined ? {} : { narrowedBps }) }
  }

  #capped(records: readonly LinkRecord[]): Capped[] {
    return records.map((record) => ({ ids: record.ids, shaped: this.#shaped(record) }))
  }
}

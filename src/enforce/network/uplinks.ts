/**
 * The uplinks of a node, for as long as its network runs: what each is now, a tree of classes on each, and for every vserver
 * what it sent and may send by all of them together. Those that are not there at its start join when they come.
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
import { NODE_TABLE } from './owned-ports.ts'
import { NODE_TABLE_6 } from './owned-ports6.ts'
import type { ShapingPolicy } from './rates.ts'
import { applyRules } from './ruleset.ts'
import { isShaped, removeShaping, requireUnshaped, type ShapedLink } from './shaping.ts'
import { SharedCaps, type Capped } from './shared-cap.ts'
import { forgetMoved, forgetThrough } from './tracked-flows.ts'
import { strictlyFiltered, UplinkRoutes } from './uplink-routes.ts'
import { unshapedLines } from './uplink-rules.ts'
import { UplinkShaper } from './uplink-shaper.ts'
import { UplinkWatch } from './uplink-watch.ts'
import {
  areDistinct,
  findUplink,
  findUplinks,
  isPresent,
  requireDistinct,
  type NumberedUplink,
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
  /** Does this, puts the rules in place for these uplinks, and does the rest, while no link is being changed. */
  readonly renew: (uplinks: readonly NumberedUplink[], around: Around) => Promise<void>
}

export interface Around {
  readonly before: () => Promise<void>
  readonly after: () => Promise<void>
}

export interface UplinksInit {
  readonly uplinks: readonly UplinkInit[]
  readonly policy: ShapingPolicy
  readonly stateDirectory: string
  readonly budgetIntervalMs?: number | undefined
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
  #current: readonly NumberedUplink[] = []
  /** Devices that may have queues of the node's. */
  readonly #shapedDevices = new Set<string>()
  #reading: Promise<SentBytes> | undefined

  /** Throws `CONFIG_INVALID` when there is none. */
  constructor(components: UplinksComponents, init: UplinksInit) {
    if (init.uplinks.length === 0) throw new SlicenetError('CONFIG_INVALID', 'the node has no uplink')
    const { clock, logger, records, inOrder } = components
    this.#components = components
    this.#inits = init.uplinks
    this.#shapers = init.uplinks.map(
      (uplink) => new UplinkShaper({ ...uplink, name: nameOf(uplink), policy: init.policy })
    )
    this.#watches = init.uplinks.map(
      (uplink, number) =>
        new UplinkWatch({
          logger,
          name: nameOf(uplink),
          find: async () => findUplink(uplink, this.#known(number)?.address6),
          isShaped: async ({ device }) => isShaped(device),
          renew: async (found) => this.#replace({ ...found, number }),
          shut: async (known) => this.#shut(known)
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

  /**
   * In the order of the configuration, as they are now, or were last; without those that never were, or whose address another has by
   * now. Empty unless opened.
   */
  get current(): readonly NumberedUplink[] {
    return this.#current
  }

  /** Of each that is away: why. */
  get troubles(): readonly string[] {
    return this.#watches.flatMap(({ trouble }, number) => {
      const name = this.#known(number)?.device ?? nameOf(this.#inits[number])
      return trouble === undefined ? [] : [`the uplink ${name} is not used: ${trouble}`]
    })
  }

  get devices(): readonly string[] {
    return this.#current.map(({ device }) => device)
  }

  /** The same, those that are there first. */
  get thereFirst(): readonly Uplink[] {
    const there = this.#current.filter(({ number }) => !this.#isAway(number))
    const away = this.#current.filter(({ number }) => this.#isAway(number))
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

  /**
   * What those are now that are there; the others are told of, and join when they come. Throws `CONFIG_INVALID` where none is,
   * and where another program shapes one.
   */
  async find(): Promise<readonly NumberedUplink[]> {
    const { there, away } = await findUplinks(this.#inits)
    for (const { device } of there) await requireUnshaped(device)
    for (const { device, number } of there) await hearRouters(device, this.#inits[number]?.address6)
    for (const [number, error] of away) this.#watches[number]?.miss(error)
    return there
  }

  /** Shapes these, for these vservers alone. */
  async startShaping(uplinks: readonly NumberedUplink[], records: readonly LinkRecord[]): Promise<void> {
    for (const { device, number } of uplinks) {
      this.#shapedDevices.add(device)
      await this.#shapers[number]?.start(device)
    }
    await this.#budgets.open(records, await this.#sentBytes())
    const links = records.map((record) => this.#shaped(record))
    for (const { number } of uplinks) await this.#shapers[number]?.shapeOnly(links)
    await this.#caps.lay(uplinks, this.#capped(records))
  }

  /** From here on they are current. */
  async open(uplinks: readonly NumberedUplink[]): Promise<void> {
    const kept = new Set(uplinks.length > 1 ? uplinks.map(({ number }) => number) : [])
    for (const routes of this.#routes) await routes.remove(kept)
    await this.#warnOfFilters(uplinks)
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
    for (const [number, watch] of this.#watches.entries()) await watch.look(this.#known(number))
    await this.#route()
  }

  /** Throws `VSERVER_FAILED` when what is guaranteed to all would be more than one of them has, be it there or not. */
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
  async unshape(record: Pick<LinkRecord, 'index' | 'ids'>): Promise<void> {
    await Promise.all(this.#shapers.map((shaper) => shaper.unshape(record.index)))
    await this.#caps.unset(record)
  }

  /** All that is remembered of it. */
  forget(id: string): void {
    this.#budgets.forget(id)
  }

  rename(id: string, to: string): void {
    this.#budgets.rename(id, to)
  }

  /** By all uplinks together that are there. */
  async sentBytes({ index }: LinkRecord): Promise<number> {
    const sent = [...(await this.#sentBytes()).values()]
    return sent.reduce((sum, ofUplink) => sum + (ofUplink.get(index) ?? 0), 0)
  }

  /** Packets of its that all queues together dropped; those of an uplink that is away, or was made again, are not counted. */
  async queueDrops({ index }: Pick<LinkRecord, 'index'>): Promise<number> {
    const drops = await this.#readEach(async (shaper) => shaper.queueDrops())
    return drops.reduce((sum, ofUplink) => sum + (ofUplink.get(index) ?? 0), 0)
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
    await this.#unshapeOthers([])
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

  async #warnOfFilters(uplinks: readonly Uplink[]): Promise<void> {
    const filtered = uplinks.length > 1 ? await strictlyFiltered(uplinks) : []
    if (filtered.length === 0) return
    this.#components.logger.warn(
      'the kernel drops what comes in by these uplinks from where it would not send',
      { uplinks: filtered, hint: 'set net.ipv4.conf.*.rp_filter to 2' }
    )
  }

  /** One uplink is another device, has another address, or is there for the first time. */
  async #replace(uplink: NumberedUplink): Promise<void> {
    const { number } = uplink
    const before = this.#known(number)
    // What one had that is away by now may be another's; it joins again when it comes.
    const others = this.#current.filter(
      (each) => each !== before && (!this.#isAway(each.number) || areDistinct(each, uplink))
    )
    const uplinks = [...others, uplink].sort((one, other) => one.number - other.number)
    requireDistinct(uplinks)
    await requireUnshaped(uplink.device)
    await hearRouters(uplink.device, this.#inits[number]?.address6)
    const records = this.#components.records
    await this.#components.renew(uplinks, {
      // Nothing leaves by it until the rules are for it.
      before: async () => {
        const links = [...records()].map((record) => this.#shaped(record))
        this.#shapedDevices.add(uplink.device)
        await this.#shapers[number]?.move(uplink.device, links)
        await this.#caps.lay(uplinks, this.#capped([...records()]))
      },
      after: async () => {
        await this.#unshapeOthers(uplinks)
        this.#current = uplinks
        const plans = [...records()].map(({ index }) => planLink(index))
        await forgetMoved(plans, before, uplink)
      }
    })
    if (before === undefined) await this.#warnOfFilters(uplinks)
  }

  /** Nothing that vservers send leaves by it until it is put in place again. */
  async #shut(uplink: Uplink): Promise<void> {
    const tables = [NODE_TABLE, ...(this.address6 === undefined ? [] : [NODE_TABLE_6])]
    await applyRules(tables.flatMap((table) => unshapedLines(table, uplink)))
  }

  /** Takes the queues of all devices away that are none of these uplinks', also of one for which no rules could be put in place. */
  async #unshapeOthers(uplinks: readonly Uplink[]): Promise<void> {
    for (const device of this.#shapedDevices) {
      if (uplinks.some((uplink) => uplink.device === device)) continue
      await removeShaping(device)
      this.#shapedDevices.delete(device)
    }
  }

  /** Unless it is not among the current ones. */
  #known(number: number): NumberedUplink | undefined {
    return this.#current.find((each) => each.number === number)
  }

  #isAway(number: number): boolean {
    return this.#watches[number]?.isAway ?? false
  }

  /** On every uplink; those that are not there, which are seen to when they come, are passed over where there is another. */
  async #onEach(task: (shaper: UplinkShaper) => Promise<void>): Promise<void> {
    const tasks = this.#shapers.map(async (shaper, number) => {
      if (shaper.device === '') return false
      try {
        await task(shaper)
        return true
      } catch (error) {
        const isThere = !this.#isAway(number) && (await isPresent(shaper.device))
        if (this.#shapers.length === 1 || isThere) throw error
        return false
      }
    })
    if ((await together(tasks)).includes(true)) return
    throw new SlicenetError('VSERVER_FAILED', 'none of the node’s uplinks is there')
  }

  /** What every uplink has counted; one that is not there has nothing to tell. */
  async #readEach<T>(read: (shaper: UplinkShaper) => Promise<T>): Promise<T[]> {
    const reads = this.#shapers.map(async (shaper) => {
      try {
        return shaper.device === '' ? [] : [await read(shaper)]
      } catch (error) {
        if (await isPresent(shaper.device)) throw error
        return []
      }
    })
    return (await together(reads)).flat()
  }

  /** One reading serves all who ask meanwhile: it lists every class. */
  async #sentBytes(): Promise<SentBytes> {
    this.#reading ??= this.#readSentBytes().finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  async #readSentBytes(): Promise<SentBytes> {
    return new Map(await this.#readEach(async (shaper) => [shaper.device, await shaper.sentBytes()] as const))
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

/** Before it is known which device it is. */
function nameOf(init: UplinkInit | undefined): string {
  return init?.device ?? 'of the default route'
}

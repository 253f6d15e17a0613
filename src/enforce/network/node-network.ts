/**
 * The node's network for its vservers: puts links, source check, owned ports and shaping together in the order that leaves
 * no gap (design §5). It works in the network namespace of its process.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import { repeat } from '../../base/lifecycle.ts'
import { LIMITS } from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import { together } from '../../base/together.ts'
import { portsWithin } from '../../ticket/ports.ts'
import type { NetworkUser, VserverLink } from '../network.ts'
import { DEVICE_PREFIX, indexOfAddress, planLink } from './address-plan.ts'
import { boundFragmentMemory } from './fragment-memory.ts'
import { followFamilies } from './link-families.ts'
import { linkLines, linkPortLines, notAttached, removalLines } from './link-lines.ts'
import { requireFree, requireNone, requireUnheard, supersededLines } from './link-lines.ts'
import { LinkNumbers } from './link-numbers.ts'
import { readRecords, removeRecord, writeRecord, type LinkRecord } from './link-records.ts'
import { LinkTurns } from './link-turns.ts'
import { readDropsOf, readNetworkCounters, type NetworkCounters } from './network-counters.ts'
import type { NodeNetwork, NodeNetworkInit } from './node-link.ts'
import { nodeRules, tablesRemoval, usersInit, type NodeRulesInit } from './node-rules.ts'
import { requireRanges } from './node-table.ts'
import { NodeUsers, userDeviceLines, usersOf } from './node-users.ts'
import { mergeRanges } from './owned-ports.ts'
import { applyRules, readChains } from './ruleset.ts'
import { DEFAULT_SHAPING } from './rates.ts'
import { silenceLink } from './silence.ts'
import { SOURCE_CHECK_TABLE } from './source-check.ts'
import { SourceHooks } from './source-hooks.ts'
import { forgetGained, forgetVserver } from './tracked-flows.ts'
import { isPresent, type NumberedUplink, type Uplink } from './uplink.ts'
import { familyOf, Uplinks, type Around } from './uplinks.ts'
import { addressInside, makeLink, namespaceOf, presentLinks, raiseLink, removeLink } from './veth.ts'
import type { VserverBounds } from './vserver-table.ts'

export interface NodeNetworkComponents {
  readonly clock: Clock
  readonly logger: Logger
}

/** Constructs only; `start` does the work. Throws `CONFIG_INVALID`. */
export function createNodeNetwork(components: NodeNetworkComponents, init: NodeNetworkInit): NodeNetwork {
  requireRanges(init.allowedPrivateRanges)
  return new LinuxNodeNetwork(components, init)
}

const REFRESH_INTERVAL_MS = 1000

class LinuxNodeNetwork implements NodeNetwork {
  readonly #logger: Logger
  readonly #clock: Clock
  readonly #init: NodeNetworkInit
  readonly #recordsDirectory: string
  readonly #bounds: VserverBounds
  readonly #records = new Map<string, LinkRecord>()
  /** By inside address, of those that are gone as well: packets of theirs may be told of later. */
  readonly #owners = new Map<string, string>()
  /** Ids of links that this process has seen to from end to end: nothing but its records and rules changes any more. */
  readonly #whole = new Set<string>()
  readonly #numbers = new LinkNumbers(() => this.#records.values())
  readonly #turns = new LinkTurns()
  readonly #users = new NodeUsers(
    () => this.#records.values(),
    () => usersInit(this.#rulesInit(this.#uplinks.current))
  )
  readonly #uplinks: Uplinks
  #hooks = new SourceHooks(false)
  #refreshing: { stop(): Promise<void> } | undefined

  constructor(components: NodeNetworkComponents, init: NodeNetworkInit) {
    this.#logger = components.logger.child('network')
    this.#clock = components.clock
    this.#init = init
    const policy = init.shaping ?? DEFAULT_SHAPING
    this.#bounds = {
      flowsPerVserverMax: init.flowsPerVserverMax ?? LIMITS.flowsPerVserverMax,
      destinationsPerMinute: policy.destinationsPerMinute,
      knownDestinationsMax: init.knownDestinationsMax ?? LIMITS.knownDestinationsPerVserverMax
    }
    this.#recordsDirectory = join(init.stateDirectory, 'links')
    this.#uplinks = new Uplinks(
      {
        clock: components.clock,
        logger: this.#logger,
        records: () => this.#records.values(),
        inOrder: async (id, task) => this.#inOrder(id, task),
        renew: async (changed, around) => this.#renew(changed, around)
      },
      { ...init, policy }
    )
  }

  async start(): Promise<void> {
    if (this.isUp) return
    const uplinks = await this.#uplinks.find()
    const [records, present, chains, hooks] = await Promise.all([
      readRecords(this.#recordsDirectory),
      presentLinks(),
      readChains(SOURCE_CHECK_TABLE),
      SourceHooks.find()
    ])
    this.#hooks = hooks
    const kept = records.filter(({ index, ids }) => ids !== undefined || present.has(index))
    const links = kept.filter(({ ids }) => ids === undefined)
    const known = new Set(links.map((record) => planLink(record.index).device))
    const strangers = [...present].map((index) => planLink(index).device).filter((each) => !known.has(each))
    for (const device of strangers) await removeLink(device)
    // An uplink that was made again is used when its rules stand.
    await this.#uplinks.startShaping(uplinks, kept)
    await this.#applyAll(uplinks, kept, hooks.strayRemoval(chains, known))
    for (const record of kept) this.#records.set(record.id, record)
    for (const { index, id } of links) this.#owners.set(planLink(index).address, id)
    for (const record of records.filter((each) => !kept.includes(each))) {
      await forgetVserver(planLink(record.index), { address6: familyOf(uplinks) })
      await removeRecord(this.#recordsDirectory, record.index)
    }
    await boundFragmentMemory()
    await writeFile('/proc/sys/net/ipv4/ip_forward', '1')
    await followFamilies(links, { address6: familyOf(uplinks) }, this.#logger)
    this.#numbers.goOnFrom(Math.max(0, ...records.map((record) => record.index)))
    await this.#uplinks.open(uplinks)
    this.#refreshing = repeat(
      () => this.#refresh(),
      {
        clock: this.#clock,
        onError: (error) => this.#logger.error('a device is not looked after', { error })
      },
      { intervalMs: REFRESH_INTERVAL_MS, initialDelayMs: REFRESH_INTERVAL_MS }
    )
    this.#logger.info('network of the node is up', {
      uplinks: uplinks.map(({ device, address }) => ({ device, address })),
      links: kept.length,
      removed: strangers.length
    })
  }

  /** Links, tables and queues stay: vservers run on while the daemon is away. */
  async stop(): Promise<void> {
    await this.#refreshing?.stop()
    await this.#uplinks.stop()
    await this.#turns.settled()
    this.#uplinks.close()
    this.#records.clear()
    this.#whole.clear()
  }

  async attach(link: VserverLink): Promise<{ readonly address: string }> {
    return this.#inOrder(link.id, () => this.#attach(link))
  }

  async attachIds(user: NetworkUser): Promise<{ readonly address: string }> {
    return this.#inOrder(user.id, () => this.#attachIds(user))
  }

  async rename(id: string, to: string): Promise<void> {
    await this.#inOrder(id, async () => {
      const record = this.#records.get(id)
      if (record === undefined) throw notAttached(id)
      const renamed = { ...record, id: to }
      this.#records.delete(id)
      this.#records.set(to, renamed)
      if (record.ids === undefined) this.#owners.set(planLink(record.index).address, to)
      if (this.#whole.delete(id)) this.#whole.add(to)
      this.#uplinks.rename(id, to)
      await writeRecord(this.#recordsDirectory, renamed)
    })
  }

  async detach(id: string): Promise<void> {
    await this.#inOrder(id, async () => {
      const record = this.#records.get(id)
      if (record === undefined) return
      await (record.ids === undefined ? this.#release(record) : this.#releaseIds(record))
      this.#records.delete(id)
      this.#whole.delete(id)
      this.#uplinks.forget(id)
    })
  }

  async list(): Promise<string[]> {
    this.#running()
    return [...this.#records.keys()].sort()
  }

  async egressBytes(id: string): Promise<number> {
    this.#running()
    const record = this.#records.get(id)
    if (record === undefined) throw notAttached(id)
    return this.#uplinks.sentBytes(record)
  }

  async isEgressNarrowed(id: string): Promise<boolean> {
    const record = this.#records.get(id)
    return record !== undefined && this.#uplinks.isNarrowed(record)
  }

  async dropped(id: string): Promise<Readonly<Record<string, number>>> {
    this.#running()
    const record = this.#records.get(id)
    if (record === undefined) throw notAttached(id)
    return readDropsOf(record, this.#running())
  }

  async counters(): Promise<NetworkCounters> {
    return readNetworkCounters(this.#records.values(), this.#running())
  }

  async remove(): Promise<void> {
    this.#running()
    await this.#turns.settled()
    requireNone(this.#records.size)
    await applyRules(await tablesRemoval())
    await this.#refreshing?.stop()
    await this.#uplinks.remove()
    await rm(this.#recordsDirectory, { recursive: true, force: true })
  }

  get isUp(): boolean {
    return this.#uplinks.current.length > 0
  }

  get uplinks(): readonly Uplink[] {
    return this.#uplinks.thereFirst
  }

  get troubles(): readonly string[] {
    return this.#uplinks.troubles
  }

  ownerOf(address: string): string | undefined {
    const index = indexOfAddress(address)
    return index === undefined ? undefined : this.#owners.get(planLink(index).address)
  }

  userOwners(): ReturnType<NodeUsers['owners']> {
    return this.#users.owners()
  }

  addressOf(id: string): string | undefined {
    const record = this.#records.get(id)
    return record === undefined || record.ids !== undefined ? undefined : planLink(record.index).address
  }

  async #refresh(): Promise<void> {
    await this.#running().look()
    await this.#users.refresh()
  }

  /** Everything that nft holds, for these records alone, and `rest`. */
  async #applyAll(
    uplinks: readonly NumberedUplink[],
    records: readonly LinkRecord[],
    rest: readonly string[] = []
  ): Promise<void> {
    await applyRules([...(await nodeRules(this.#rulesInit(uplinks), records)), ...rest])
    this.#hooks.stand(records.flatMap(({ index, ids }) => (ids === undefined ? [index] : [])))
  }

  /** Puts the rules in place for other uplinks, with what they need before and after, while no link is being changed. */
  async #renew(uplinks: readonly NumberedUplink[], { before, after }: Around): Promise<void> {
    await this.#turns.takeAlone(async () => {
      await before()
      const present = await presentLinks()
      const there = [...this.#records.values()].filter(
        ({ index, ids }) => ids !== undefined || present.has(index)
      )
      await this.#applyAll(uplinks, there)
      await after()
      // What could not be changed is put right when it is attached again.
      for (const id of await followFamilies(there, this.#uplinks, this.#logger)) this.#whole.delete(id)
    })
  }

  async #attach(link: VserverLink): Promise<{ readonly address: string }> {
    const uplinks = this.#running()
    // Only who was attached before can have a link that stays; what others get is begun before their process is there.
    const namespace = this.#records.has(link.id) ? await namespaceOf(await link.pid) : undefined
    const had = this.#records.get(link.id)
    const [isThere] = await Promise.all([
      had !== undefined && isPresent(planLink(had.index).device),
      this.#numbers.passStrangers()
    ])
    // From here to the entry in the map nothing is awaited, so that no two links pass the check with one port.
    const before = this.#records.get(link.id)
    const ports = mergeRanges(link.ports)
    const gained = ports.filter((range) => !portsWithin([range], before?.ports ?? []))
    const others = [...this.#records.values()].filter(({ id }) => id !== link.id)
    requireFree(ports, { reserved: this.#init.reservedPorts, others })
    this.#uplinks.requireRoom(link.id, link.resources)
    const same = isThere && before !== undefined && before.namespace === namespace
    const index = same ? before.index : this.#numbers.take()
    const { id, resources, shaping } = link
    const isWhole = same && this.#whole.delete(id)
    const record = { id, index, namespace: namespace ?? '', ports, resources, shaping }
    this.#records.set(link.id, record)
    const plan = planLink(index)
    this.#owners.set(plan.address, id)
    try {
      if (before !== undefined && !same) await this.#release(before)
      await writeRecord(this.#recordsDirectory, record)
      const ends = [
        this.#endInside(record, { isThere: same, isWhole }, link.pid),
        silenceLink(link, before?.ports, this.#logger),
        requireUnheard(gained, uplinks.current)
      ]
      const lines = [
        ...(same ? supersededLines(before, record, uplinks) : []),
        ...(isWhole ? linkPortLines('add', { plan, ports }, uplinks) : this.#deviceLines(record))
      ]
      // A chain of the source check may stand on the device; classes would wait for the same lock as that.
      await together(ends)
      await together([applyRules(lines), this.#uplinks.shape(record)])
      this.#hooks.stand([index])
      await Promise.all([
        isWhole ? undefined : raiseLink(plan, uplinks),
        forgetGained(gained, { nodes: uplinks.current, vserver: same ? plan : undefined })
      ])
      this.#whole.add(id)
    } catch (error) {
      await this.#undo(record, same ? before : undefined)
      throw error
    }
    return { address: plan.address }
  }

  /** Its index stands for its traffic classes alone: there is no device of that number. */
  async #attachIds({
    id,
    firstId,
    lastId,
    resources,
    shaping
  }: NetworkUser): Promise<{ readonly address: string }> {
    const uplinks = this.#running()
    await this.#numbers.passStrangers()
    const before = this.#records.get(id)
    this.#uplinks.requireRoom(id, resources)
    const index = before?.index ?? this.#numbers.take()
    const ids = { first: firstId, last: lastId }
    const record = { id, index, namespace: '', ports: [], resources, shaping, ids }
    this.#records.set(id, record)
    try {
      await writeRecord(this.#recordsDirectory, record)
      await this.#uplinks.shape(record)
      await (before === undefined ? this.#users.join(firstId) : this.#users.apply())
    } catch (error) {
      if (before === undefined) {
        await this.#releaseIds(record)
        this.#records.delete(id)
      } else {
        this.#records.set(id, before)
        await writeRecord(this.#recordsDirectory, before)
      }
      throw error
    }
    return { address: uplinks.thereFirst[0]?.address ?? '' }
  }

  async #releaseIds(record: LinkRecord): Promise<void> {
    await this.#users.leave(record)
    await this.#uplinks.unshape(record)
    await removeRecord(this.#recordsDirectory, record.index)
  }

  async #endInside(
    record: LinkRecord,
    { isThere, isWhole }: { readonly isThere: boolean; readonly isWhole: boolean },
    process: VserverLink['pid']
  ): Promise<void> {
    if (isWhole) return
    const [pid, uplink] = [await process, this.#running()]
    if (isThere) return addressInside(planLink(record.index), pid, uplink)
    const placed = { ...record, namespace: await namespaceOf(pid) }
    this.#records.set(record.id, placed)
    await writeRecord(this.#recordsDirectory, placed)
    await makeLink(planLink(record.index), pid, uplink)
  }

  #deviceLines(record: LinkRecord): string[] {
    const { device } = planLink(record.index)
    const hasUsers = usersOf(this.#records.values()).length > 0
    return [
      ...linkLines(record, this.#uplinks),
      ...this.#hooks.missingLines(record.index),
      ...(hasUsers ? userDeviceLines(device, this.#uplinks.devices) : [])
    ]
  }

  /** After a failed attach: what was attached before stays, what is new goes. */
  async #undo(record: LinkRecord, before: LinkRecord | undefined): Promise<void> {
    try {
      if (before === undefined) {
        await this.#release(record)
        this.#records.delete(record.id)
        return
      }
      this.#records.set(before.id, before)
      await writeRecord(this.#recordsDirectory, before)
      const uplinks = this.#running()
      await applyRules([...supersededLines(record, before, uplinks), ...linkLines(before, uplinks)])
      await this.#uplinks.shape(before)
    } catch (error) {
      // The record is kept, so that detach or the next start finishes this.
      this.#logger.error('a link is left half-made', {
        id: record.id,
        device: planLink(record.index).device,
        error
      })
    }
  }

  /** Removes all of a link from the kernel and the disk, whatever of it is there; the device first, then its checks. */
  async #release(record: LinkRecord): Promise<void> {
    const plan = planLink(record.index)
    await removeLink(plan.device)
    const uplinks = this.#running()
    await Promise.all([
      applyRules([...removalLines(record, this.#bounds, uplinks), ...this.#hooks.removalFor(plan.device)]),
      uplinks.unshape(record)
    ])
    await forgetVserver(plan, uplinks)
    await removeRecord(this.#recordsDirectory, record.index)
  }

  async #inOrder<T>(id: string, task: () => Promise<T>): Promise<T> {
    this.#running()
    return this.#turns.take(id, task)
  }

  #rulesInit(uplinks: readonly NumberedUplink[]): NodeRulesInit {
    const { allowedPrivateRanges, reservedPorts } = this.#init
    return { uplinks, allowedPrivateRanges, reservedPorts, hooks: this.#hooks, ...this.#bounds }
  }

  #running(): Uplinks {
    if (!this.isUp) throw new TypeError(`the network of ${DEVICE_PREFIX}* links is not started`)
    return this.#uplinks
  }
}

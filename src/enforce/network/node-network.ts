/**
 * The node's network for its vservers: puts links, source check, owned ports and shaping together in the order that leaves
 * no gap (design §5). It works in the network namespace of its process.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import { SlicenetError } from '../../base/errors.ts'
import { repeat } from '../../base/lifecycle.ts'
import { LIMITS } from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import { together } from '../../base/together.ts'
import { portsWithin, type PortRange } from '../../ticket/ports.ts'
import type { NetworkUser, VserverLink } from '../network.ts'
import { DEVICE_PREFIX, indexOfDevice, nextIndex, planLink } from './address-plan.ts'
import { boundFragmentMemory } from './fragment-memory.ts'
import { linkLines, notAttached, removalLines, requireUnheard, supersededLines } from './link-lines.ts'
import { readRecords, removeRecord, writeRecord, type LinkRecord } from './link-records.ts'
import { LinkTurns } from './link-turns.ts'
import { readDropsOf, readNetworkCounters, type NetworkCounters } from './network-counters.ts'
import type { NodeNetwork, NodeNetworkInit } from './node-link.ts'
import { nodeRules, NO_RULES, type NodeRulesInit } from './node-rules.ts'
import { requireRanges, type VserverBounds } from './node-table.ts'
import { NodeUsers, userDeviceLines, usersOf } from './node-users.ts'
import { mergeRanges, portLines, requireUnclaimed, SHARED_CLAIM } from './owned-ports.ts'
import { applyRules, readChains } from './ruleset.ts'
import { DEFAULT_SHAPING } from './rates.ts'
import { requireUnshaped } from './shaping.ts'
import { silenceLink } from './silence.ts'
import { SOURCE_CHECK_TABLE, sourceCheckRemoval } from './source-check.ts'
import { forgetGained, forgetVserver } from './tracked-flows.ts'
import { UplinkShaper } from './uplink-shaper.ts'
import { UplinkWatch } from './uplink-watch.ts'
import { findUplink, type Uplink } from './uplink.ts'
import { addressInside, makeLink, namespaceOf, presentLinks, raiseLink, removeLink } from './veth.ts'

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
  readonly #turns = new LinkTurns()
  readonly #users = new NodeUsers(() => this.#records.values())
  readonly #shaper: UplinkShaper
  readonly #watch: UplinkWatch
  #uplink: Uplink | undefined
  #refreshing: { stop(): Promise<void> } | undefined
  #lastIndex = 0

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
    this.#watch = new UplinkWatch({
      logger: this.#logger,
      find: async () => findUplink(init),
      renew: async (uplink) => this.#renew(uplink)
    })
    const { rootBps, nodeBps, stateDirectory, budgetIntervalMs } = init
    this.#shaper = new UplinkShaper(
      {
        clock: components.clock,
        logger: this.#logger,
        records: () => this.#records.values(),
        inOrder: async (id, task) => this.#inOrder(id, task)
      },
      { rootBps, nodeBps, policy, stateDirectory, budgetIntervalMs }
    )
  }

  async start(): Promise<void> {
    if (this.#uplink !== undefined) return
    const uplink = await findUplink(this.#init)
    await requireUnshaped(uplink.device)
    const [records, present, chains] = await Promise.all([
      readRecords(this.#recordsDirectory),
      presentLinks(),
      readChains(SOURCE_CHECK_TABLE)
    ])
    const kept = records.filter(({ index, ids }) => ids !== undefined || present.has(index))
    const links = kept.filter(({ ids }) => ids === undefined)
    const known = new Set(links.map((record) => planLink(record.index).device))
    const strangers = [...present].map((index) => planLink(index).device).filter((each) => !known.has(each))
    for (const device of strangers) await removeLink(device)
    await applyRules([
      ...(await nodeRules(this.#rulesInit(uplink), kept)),
      ...chains
        .filter((chain) => indexOfDevice(chain) !== undefined && !known.has(chain))
        .flatMap(sourceCheckRemoval)
    ])
    await this.#shaper.start(uplink.device, kept)
    for (const record of kept) this.#records.set(record.id, record)
    for (const { index, id } of links) this.#owners.set(planLink(index).address, id)
    for (const record of records.filter((each) => !kept.includes(each))) {
      await forgetVserver(planLink(record.index).address)
      await removeRecord(this.#recordsDirectory, record.index)
    }
    await boundFragmentMemory()
    await writeFile('/proc/sys/net/ipv4/ip_forward', '1')
    this.#lastIndex = Math.max(0, ...records.map((record) => record.index))
    this.#uplink = uplink
    // Devices come and go.
    this.#refreshing = repeat(
      () => this.#refresh(),
      {
        clock: this.#clock,
        onError: (error) => this.#logger.error('a device is not looked after', { error })
      },
      { intervalMs: REFRESH_INTERVAL_MS, initialDelayMs: REFRESH_INTERVAL_MS }
    )
    this.#logger.info('network of the node is up', {
      uplink: uplink.device,
      address: uplink.address,
      links: kept.length,
      removed: strangers.length
    })
  }

  /** Links, tables and queues stay: vservers run on while the daemon is away. */
  async stop(): Promise<void> {
    await this.#refreshing?.stop()
    await this.#shaper.stop()
    await this.#turns.settled()
    this.#uplink = undefined
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
      this.#shaper.rename(id, to)
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
      this.#shaper.forget(id)
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
    return this.#shaper.sentBytes(record)
  }

  async isEgressNarrowed(id: string): Promise<boolean> {
    const record = this.#records.get(id)
    return record !== undefined && this.#shaper.isNarrowed(record)
  }

  async dropped(id: string): Promise<Readonly<Record<string, number>>> {
    this.#running()
    const record = this.#records.get(id)
    if (record === undefined) throw notAttached(id)
    return readDropsOf(record)
  }

  async counters(): Promise<NetworkCounters> {
    this.#running()
    return readNetworkCounters(this.#records.values())
  }

  async remove(): Promise<void> {
    this.#running()
    await this.#turns.settled()
    if (this.#records.size > 0) {
      throw new SlicenetError('BUSY', `${this.#records.size} vservers are attached to the node's network`, {
        hint: 'destroy them first'
      })
    }
    await applyRules(NO_RULES)
    await this.#refreshing?.stop()
    await this.#shaper.remove()
    await rm(this.#recordsDirectory, { recursive: true, force: true })
    this.#uplink = undefined
  }

  get isUp(): boolean {
    return this.#uplink !== undefined
  }

  ownerOf(address: string): string | undefined {
    return this.#owners.get(address)
  }

  userOwners(): ReturnType<NodeUsers['owners']> {
    return this.#users.owners()
  }

  addressOf(id: string): string | undefined {
    const record = this.#records.get(id)
    return record === undefined || record.ids !== undefined ? undefined : planLink(record.index).address
  }

  async #refresh(): Promise<void> {
    await this.#watch.look(this.#running())
    await this.#users.refresh(this.#running().device)
  }

  /** Puts everything in place for another uplink, while no link is being changed. */
  async #renew(uplink: Uplink): Promise<void> {
    await this.#turns.takeAlone(async () => {
      await requireUnshaped(uplink.device)
      const present = await presentLinks()
      const records = [...this.#records.values()]
      const there = records.filter(({ index, ids }) => ids !== undefined || present.has(index))
      await applyRules(await nodeRules(this.#rulesInit(uplink), there))
      await this.#shaper.move(uplink.device, records)
      this.#uplink = uplink
      for (const { index } of records) await forgetVserver(planLink(index).address)
    })
  }

  async #attach(link: VserverLink): Promise<{ readonly address: string }> {
    const uplink = this.#running()
    // Only who was attached before can have a link that stays; what others get is begun before their process is there.
    const namespace = this.#records.has(link.id) ? await namespaceOf(await link.pid) : undefined
    const present = await presentLinks()
    // From here to the entry in the map nothing is awaited, so that no two links pass the check with one port.
    const before = this.#records.get(link.id)
    const ports = mergeRanges(link.ports)
    const gained = ports.filter((range) => !portsWithin([range], before?.ports ?? []))
    this.#requireFree(link.id, ports)
    this.#shaper.requireRoom(link.id, link.resources)
    const same = before !== undefined && before.namespace === namespace && present.has(before.index)
    const index = same ? before.index : this.#freeIndex(present)
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
        requireUnheard(gained, uplink)
      ]
      const lines = [
        ...(same ? supersededLines(before, record) : []),
        ...(isWhole ? portLines('add', { plan, ports }) : this.#deviceLines(record, uplink))
      ]
      const parts = [
        // The source check stands on the device.
        together(ends).then(async () => applyRules(lines)),
        this.#shaper.shape(record)
      ]
      await together(parts)
      await Promise.all([
        isWhole ? undefined : raiseLink(plan),
        forgetGained(gained, { nodeAddress: uplink.address, vserver: same ? plan.address : undefined })
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
    const uplink = this.#running()
    const present = await presentLinks()
    const before = this.#records.get(id)
    this.#shaper.requireRoom(id, resources)
    const index = before?.index ?? this.#freeIndex(present)
    const ids = { first: firstId, last: lastId }
    const record = { id, index, namespace: '', ports: [], resources, shaping, ids }
    this.#records.set(id, record)
    try {
      await writeRecord(this.#recordsDirectory, record)
      await this.#shaper.shape(record)
      await (before === undefined
        ? this.#users.join(firstId, uplink.device)
        : this.#users.apply(uplink.device))
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
    return { address: uplink.address }
  }

  async #releaseIds(record: LinkRecord): Promise<void> {
    const uplink = this.#running()
    await this.#users.leave(record, uplink.device)
    await this.#shaper.unshape(record.index)
    await removeRecord(this.#recordsDirectory, record.index)
  }

  async #endInside(
    record: LinkRecord,
    { isThere, isWhole }: { readonly isThere: boolean; readonly isWhole: boolean },
    process: VserverLink['pid']
  ): Promise<void> {
    if (isWhole) return
    const pid = await process
    if (isThere) return addressInside(planLink(record.index), pid)
    const { mtu } = this.#running()
    const placed = { ...record, namespace: await namespaceOf(pid) }
    this.#records.set(record.id, placed)
    await writeRecord(this.#recordsDirectory, placed)
    await makeLink(planLink(record.index), pid, mtu)
  }

  #requireFree(id: string, ports: readonly PortRange[]): void {
    const others = [...this.#records.values()].filter((record) => record.id !== id)
    requireUnclaimed(ports, [
      { by: 'the node', ports: this.#init.reservedPorts },
      SHARED_CLAIM,
      ...others.map((record) => ({ by: `vserver ${record.id}`, ports: record.ports }))
    ])
  }

  #deviceLines(record: LinkRecord, uplink: Uplink): string[] {
    const { device } = planLink(record.index)
    const hasUsers = usersOf(this.#records.values()).length > 0
    return [...linkLines(record), ...(hasUsers ? userDeviceLines(device, uplink.device) : [])]
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
      await applyRules([...supersededLines(record, before), ...linkLines(before)])
      await this.#shaper.shape(before)
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
    await Promise.all([applyRules(removalLines(record, this.#bounds)), this.#shaper.unshape(record.index)])
    await forgetVserver(plan.address)
    await removeRecord(this.#recordsDirectory, record.index)
  }

  #freeIndex(present: ReadonlySet<number>): number {
    const used = [...this.#records.values()].map((record) => record.index)
    this.#lastIndex = nextIndex(this.#lastIndex, new Set([...used, ...present]))
    return this.#lastIndex
  }

  async #inOrder<T>(id: string, task: () => Promise<T>): Promise<T> {
    this.#running()
    return this.#turns.take(id, task)
  }

  #rulesInit({ device, address }: Uplink): NodeRulesInit {
    const { allowedPrivateRanges, reservedPorts } = this.#init
    return { uplink: device, nodeAddress: address, allowedPrivateRanges, reservedPorts, ...this.#bounds }
  }

  #running(): Uplink {
    if (this.#uplink === undefined)
      throw new TypeError(`the network of ${DEVICE_PREFIX}* links is not started`)
    return this.#uplink
  }
}

/**
 * The node's network for its vservers: puts links, source check, owned ports and shaping together in the order that leaves
 * no gap (design §5). It works in the network namespace of its process.
 */
import { rm, writeFile } from 'node:fs/promises'
import { isIPv4 } from 'node:net'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import { SlicenetError } from '../../base/errors.ts'
import { repeat } from '../../base/lifecycle.ts'
import { LIMITS } from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import { together } from '../../base/together.ts'
import { portsWithin, type PortRange } from '../../ticket/ports.ts'
import type { NetworkUser, VserverLink, VserverNetwork } from '../network.ts'
import { DEVICE_PREFIX, planLink, type LinkPlan } from './address-plan.ts'
import { ENDS_TABLE } from './lease-ends.ts'
import { linkLines, notAttached, removedPortLines, requireUnheard, shapedLink } from './link-lines.ts'
import { readRecords, removeRecord, writeRecord, type LinkRecord } from './link-records.ts'
import { readNetworkCounters, type NetworkCounters } from './network-counters.ts'
import { flowCountRemoval, nodeTable } from './node-table.ts'
import {
  currentUsersLines,
  NodeUsers,
  userDeviceLines,
  usersOf,
  USERS_TABLE,
  USERS_TABLE_6
} from './node-users.ts'
import {
  mergeRanges,
  NODE_TABLE,
  ownershipLines,
  portLines,
  requireUnclaimed,
  reservedLines,
  SHARED_CLAIM
} from './owned-ports.ts'
import { applyRules, readChains } from './ruleset.ts'
import { installShaping, removeShaping, sentBytes, shapeLinks, unshapeLink } from './shaping.ts'
import { SOURCE_CHECK_TABLE, sourceCheckRemoval } from './source-check.ts'
import { forgetArrivals, forgetVserver } from './tracked-flows.ts'
import { UNTRACKED_TABLE } from './untracked-flows.ts'
import { findUplink, type Uplink } from './uplink.ts'
import { addressInside, makeLink, namespaceOf, presentLinks, raiseLink, removeLink } from './veth.ts'

export interface NodeNetworkComponents {
  readonly clock: Clock
  readonly logger: Logger
}

export interface NodeNetworkInit {
  /** Default: the device of the default route. */
  readonly uplink?: string
  /** The IPv4 address that the world knows the node by. Default: the uplink's. */
  readonly nodeAddress?: string
  /** Bits a second: the administrator's cap on all that leaves the node, and what its own traffic is guaranteed. */
  readonly rootBps: number
  readonly nodeBps: number
  /** The node's own ports, which no vserver ever owns or sends from. */
  readonly reservedPorts: readonly PortRange[]
  /** CIDR ranges that vservers may reach although they are private. */
  readonly allowedPrivateRanges: readonly string[]
  /** What is kept here lets a later daemon find the links that run. */
  readonly stateDirectory: string
  /** Connections that one vserver may have open; default `LIMITS.flowsPerVserverMax`. */
  readonly flowsPerVserverMax?: number
}

/** A link as this network takes it. */
export interface NodeLink extends VserverLink {
  /**
   * Owned ports that programs serve through raw sockets: the vserver's kernel, which knows nothing of them, sends neither
   * resets nor unreachables from them. Default none.
   */
  readonly silentPorts?: readonly PortRange[]
}

export interface NodeNetwork extends VserverNetwork {
  attach(link: NodeLink): Promise<{ readonly address: string }>
  counters(): Promise<NetworkCounters>
  /** Whether it has been started. */
  readonly isUp: boolean
  /** The id of the vserver that has an inside address, or had it last if nobody has. */
  ownerOf(address: string): string | undefined
  /** The inside address of a vserver that is attached and has one. */
  addressOf(id: string): string | undefined
  /** Takes the tables and the uplink's queue away, for a node that is shut down for good. Throws `BUSY` while links are attached. */
  remove(): Promise<void>
}

/** Constructs only; `start` does the work. Throws `CONFIG_INVALID`. */
export function createNodeNetwork(components: NodeNetworkComponents, init: NodeNetworkInit): NodeNetwork {
  for (const range of init.allowedPrivateRanges) {
    const [address = '', bits = '32', rest] = range.split('/')
    if (!isIPv4(address) || !/^\d{1,2}$/.test(bits) || Number(bits) > 32 || rest !== undefined) {
      throw new SlicenetError('CONFIG_INVALID', `${JSON.stringify(range)} is no range of IPv4 addresses`, {
        hint: 'write it as 192.0.2.0/24'
      })
    }
  }
  return new LinuxNodeNetwork(components, init)
}

const REFRESH_INTERVAL_MS = 1000

class LinuxNodeNetwork implements NodeNetwork {
  readonly #logger: Logger
  readonly #clock: Clock
  readonly #init: NodeNetworkInit
  readonly #recordsDirectory: string
  readonly #flowsMax: number
  readonly #records = new Map<string, LinkRecord>()
  /** By inside address, of those that are gone as well: packets of theirs may be told of later. */
  readonly #owners = new Map<string, string>()
  /** Ids of links that this process has seen to from end to end: nothing but its records and rules changes any more. */
  readonly #whole = new Set<string>()
  /** The last task of each id, so that two calls for one vserver do not meet in the kernel. */
  readonly #tasks = new Map<string, Promise<unknown>>()
  readonly #users = new NodeUsers(() => this.#records.values())
  #uplink: Uplink | undefined
  #refreshing: { stop(): Promise<void> } | undefined
  #lastIndex = 0
  #reading: Promise<Map<number, number>> | undefined

  constructor(components: NodeNetworkComponents, init: NodeNetworkInit) {
    this.#logger = components.logger.child('network')
    this.#clock = components.clock
    this.#init = init
    this.#flowsMax = init.flowsPerVserverMax ?? LIMITS.flowsPerVserverMax
    this.#recordsDirectory = join(init.stateDirectory, 'links')
  }

  async start(): Promise<void> {
    if (this.#uplink !== undefined) return
    const uplink = await findUplink(this.#init)
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
      nodeTable({
        uplink: uplink.device,
        nodeAddress: uplink.address,
        allowedPrivateRanges: this.#init.allowedPrivateRanges,
        flowsPerVserverMax: this.#flowsMax
      }),
      `add table ${SOURCE_CHECK_TABLE}`,
      ...reservedLines(this.#init.reservedPorts),
      ...chains.filter((chain) => !known.has(chain)).flatMap(sourceCheckRemoval),
      ...links.flatMap((record) => linkLines(record)),
      ...(await currentUsersLines(kept, uplink.device))
    ])
    await installShaping(this.#shaping(uplink))
    const left = await sentBytes(uplink.device)
    const indexes = new Set(kept.map(({ index }) => index))
    for (const index of left.keys()) {
      if (!indexes.has(index)) await unshapeLink(uplink.device, planLink(index))
    }
    await shapeLinks(this.#shaping(uplink), kept.map(shapedLink))
    for (const record of kept) this.#records.set(record.id, record)
    for (const { index, id } of links) this.#owners.set(planLink(index).address, id)
    for (const record of records.filter((each) => !kept.includes(each))) {
      await forgetVserver(planLink(record.index).address)
      await removeRecord(this.#recordsDirectory, record.index)
    }
    await writeFile('/proc/sys/net/ipv4/ip_forward', '1')
    this.#lastIndex = Math.max(0, ...records.map((record) => record.index))
    this.#uplink = uplink
    // Devices of others come and go.
    this.#refreshing = repeat(
      () => this.#users.refresh(uplink.device),
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
    await Promise.allSettled(this.#tasks.values())
    this.#uplink = undefined
    this.#records.clear()
    this.#whole.clear()
  }

  async attach(link: NodeLink): Promise<{ readonly address: string }> {
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
    })
  }

  async list(): Promise<string[]> {
    this.#running()
    return [...this.#records.keys()].sort()
  }

  async egressBytes(id: string): Promise<number> {
    const uplink = this.#running()
    const record = this.#records.get(id)
    if (record === undefined) throw notAttached(id)
    // One reading serves all who ask meanwhile: it lists every class.
    this.#reading ??= sentBytes(uplink.device).finally(() => {
      this.#reading = undefined
    })
    return (await this.#reading).get(record.index) ?? 0
  }

  async counters(): Promise<NetworkCounters> {
    this.#running()
    return readNetworkCounters(this.#records.values())
  }

  async remove(): Promise<void> {
    const uplink = this.#running()
    await Promise.allSettled(this.#tasks.values())
    if (this.#records.size > 0) {
      throw new SlicenetError('BUSY', `${this.#records.size} vservers are attached to the node's network`, {
        hint: 'destroy them first'
      })
    }
    await applyRules(
      [NODE_TABLE, SOURCE_CHECK_TABLE, USERS_TABLE, USERS_TABLE_6, UNTRACKED_TABLE, ENDS_TABLE].flatMap(
        (name) => [`add table ${name}`, `delete table ${name}`]
      )
    )
    await this.#refreshing?.stop()
    await removeShaping(uplink.device)
    await rm(this.#recordsDirectory, { recursive: true, force: true })
    this.#uplink = undefined
  }

  get isUp(): boolean {
    return this.#uplink !== undefined
  }

  ownerOf(address: string): string | undefined {
    return this.#owners.get(address)
  }

  addressOf(id: string): string | undefined {
    const record = this.#records.get(id)
    return record === undefined || record.ids !== undefined ? undefined : planLink(record.index).address
  }

  async #attach(link: NodeLink): Promise<{ readonly address: string }> {
    const uplink = this.#running()
    // Only who was attached before can have a link that stays; what others get is begun before their process is there.
    const namespace = this.#records.has(link.id) ? await namespaceOf(await link.pid) : undefined
    const present = await presentLinks()
    // From here to the entry in the map nothing is awaited, so that no two links pass the check with one port.
    const before = this.#records.get(link.id)
    const ports = mergeRanges(link.ports)
    const gained = ports.filter((range) => !portsWithin([range], before?.ports ?? []))
    this.#requireFree(link.id, ports)
    const silentPorts = mergeRanges(link.silentPorts ?? [])
    if (!portsWithin(silentPorts, ports)) throw new TypeError('only owned ports can be silent')
    const same = before !== undefined && before.namespace === namespace && present.has(before.index)
    const index = same ? before.index : this.#freeIndex(present)
    const { id, resources } = link
    const isWhole = same && this.#whole.delete(id)
    const record = { id, index, namespace: namespace ?? '', ports, silentPorts, resources }
    this.#records.set(link.id, record)
    const plan = planLink(index)
    this.#owners.set(plan.address, id)
    try {
      if (before !== undefined && !same) await this.#release(before)
      await writeRecord(this.#recordsDirectory, record)
      const ends = [
        this.#endInside(record, { isThere: same, isWhole }, link.pid),
        requireUnheard(gained, uplink)
      ]
      const lines = [
        ...(same ? removedPortLines(before, record) : []),
        ...(isWhole ? portLines('add', { plan, ports, silentPorts }) : this.#deviceLines(record, uplink))
      ]
      const parts = [
        // The source check stands on the device.
        together(ends).then(async () => applyRules(lines)),
        shapeLinks(this.#shaping(uplink), [shapedLink(record)])
      ]
      await together(parts)
      await Promise.all([
        isWhole ? undefined : raiseLink(plan),
        this.#forgetGained(gained, same ? plan : undefined)
      ])
      this.#whole.add(id)
    } catch (error) {
      await this.#undo(record, same ? before : undefined)
      throw error
    }
    return { address: plan.address }
  }

  /** Its index stands for its traffic classes alone: there is no device of that number. */
  async #attachIds({ id, firstId, lastId, resources }: NetworkUser): Promise<{ readonly address: string }> {
    const uplink = this.#running()
    const present = await presentLinks()
    const before = this.#records.get(id)
    const index = before?.index ?? this.#freeIndex(present)
    const ids = { first: firstId, last: lastId }
    const record = { id, index, namespace: '', ports: [], silentPorts: [], resources, ids }
    this.#records.set(id, record)
    try {
      await writeRecord(this.#recordsDirectory, record)
      await shapeLinks(this.#shaping(uplink), [shapedLink(record)])
      await this.#users.apply(uplink.device)
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

  async #releaseIds({ id, index }: LinkRecord): Promise<void> {
    const uplink = this.#running()
    await this.#users.leave(id, uplink.device)
    await unshapeLink(uplink.device, planLink(index))
    await removeRecord(this.#recordsDirectory, index)
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

  /** Whoever sent to these ports before their owner was there must not go on reaching nobody. */
  async #forgetGained(gained: readonly PortRange[], changed: LinkPlan | undefined): Promise<void> {
    const uplink = this.#running()
    const protocols = new Set(gained.map((range) => range.protocol))
    await Promise.all([
      protocols.has('udp') ? forgetArrivals(uplink.address, 'udp') : undefined,
      protocols.has('icmp') ? forgetArrivals(uplink.address, 'icmp') : undefined,
      changed !== undefined && protocols.has('udp') ? forgetVserver(changed.address, 'udp') : undefined
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
      await applyRules([...removedPortLines(record, before), ...linkLines(before)])
      await shapeLinks(this.#shaping(this.#running()), [shapedLink(before)])
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
    const uplink = this.#running()
    const plan = planLink(record.index)
    await removeLink(plan.device)
    const ownership = { plan, ports: record.ports, silentPorts: record.silentPorts }
    await Promise.all([
      // Adding first makes deleting certain, also after an attach that failed early.
      applyRules([
        ...ownershipLines('add', ownership),
        ...ownershipLines('delete', ownership),
        ...sourceCheckRemoval(plan.device),
        ...flowCountRemoval(plan.address, this.#flowsMax)
      ]),
      unshapeLink(uplink.device, plan)
    ])
    await forgetVserver(plan.address)
    await removeRecord(this.#recordsDirectory, record.index)
  }

  /** Numbers are used in turn, so that one just freed is not at once another's. */
  #freeIndex(present: ReadonlySet<number>): number {
    const used = new Set([...this.#records.values()].map((record) => record.index))
    for (let step = 1; step <= LIMITS.linksPerNodeMax; step++) {
      const index = ((this.#lastIndex + step - 1) % LIMITS.linksPerNodeMax) + 1
      if (used.has(index) || present.has(index)) continue
      this.#lastIndex = index
      return index
    }
    throw new SlicenetError('BUSY', `the node has ${LIMITS.linksPerNodeMax} links, and no more are possible`)
  }

  async #inOrder<T>(id: string, task: () => Promise<T>): Promise<T> {
    this.#running()
    const before = this.#tasks.get(id) ?? Promise.resolve()
    const mine = before.then(task, task)
    this.#tasks.set(id, mine)
    try {
      return await mine
    } finally {
      if (this.#tasks.get(id) === mine) this.#tasks.delete(id)
    }
  }

  #running(): Uplink {
    if (this.#uplink === undefined)
      throw new TypeError(`the network of ${DEVICE_PREFIX}* links is not started`)
    return this.#uplink
  }

  #shaping(uplink: Uplink): { uplink: string; rootBps: number; nodeBps: number } {
    return { uplink: uplink.device, rootBps: this.#init.rootBps, nodeBps: this.#init.nodeBps }
  }
}

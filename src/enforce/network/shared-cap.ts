/**
 * A vserver's cap over all uplinks together, and those of its buckets for packets that raise alarms: each uplink has classes
 * with these caps, and so would let it out as often as there are uplinks. What is more is dropped, whichever uplink it is for.
 * In a table of its own, which counts IPv4 and IPv6 together and stands only where there are several uplinks.
 */
import { ANY_LINK, planLink, SHAPING_MAJOR } from './address-plan.ts'
import {
  blockOf,
  countDrop,
  countDropOfUser,
  dropCountsRemoval,
  dropCountsSet,
  keptDropCounts,
  senderOf,
  SHAPED,
  USER_BLOCK,
  userDropCountsRemoval,
  userDropCountsSet
} from './drop-counts.ts'
import type { LinkRecord } from './link-records.ts'
import { bytesIn, vserverRates, type ShapingPolicy } from './rates.ts'
import { applyRules } from './ruleset.ts'
import { cautionBuckets, type ShapedLink } from './shaping.ts'
import { devicesOf, type UplinkPlace } from './uplink-rules.ts'

export const CAPS_TABLE = 'inet slicenet_caps'
/** What may come at once, beyond the second's worth that nft adds to it: two of the largest packets that offloading makes. */
const BURST_BYTES = 128 * 1024
/** The same of a bucket: with the second's worth more than what one uplink takes at once, so that who uses one loses nothing by it. */
const BUCKET_BURST_BYTES = 8 * 1024

/** Who has caps: a link, told by its device, or a vserver that shares the node's network, told by its users. */
export interface Capped {
  readonly ids?: LinkRecord['ids'] | undefined
  readonly shaped: ShapedLink
}

/** A limit of nft, and by which element of which map packets come to it. */
interface SharedCap {
  readonly limit: string
  readonly map: 'links' | 'users' | 'buckets'
  readonly key: string
  /** Bits a second. */
  readonly bps: number
}

export interface SharedCapsInit {
  /** Of all uplinks together. */
  readonly rootBps: number
  readonly policy: ShapingPolicy
}

/** The caps that are in place. */
export class SharedCaps {
  readonly #init: SharedCapsInit
  /** By the link's number. */
  #caps = new Map<number, readonly SharedCap[]>()
  #isLaid = false

  constructor(init: SharedCapsInit) {
    this.#init = init
  }

  /** Puts those of these vservers in place, and no others. */
  async lay(uplinks: readonly UplinkPlace[], vservers: readonly Capped[]): Promise<void> {
    const isLaid = uplinks.length > 1
    const caps = (isLaid ? vservers : []).map(
      (capped) => [capped.shaped.plan.index, capsOf(this.#init, capped)] as const
    )
    const senders = new Set(vservers.map(({ ids, shaped }) => senderOf({ index: shaped.plan.index, ids })))
    await applyRules([
      ...tableLines(uplinks),
      ...(isLaid ? await keptDropCounts(CAPS_TABLE, senders) : []),
      ...caps.flatMap(([, each]) => each.flatMap(addition))
    ])
    this.#isLaid = isLaid
    this.#caps = new Map(caps)
  }

  /** Changes those of one vserver; what stays the same is left as it is, with what has been used of it. */
  async set(capped: Capped): Promise<void> {
    await this.#change(capped.shaped.plan.index, capsOf(this.#init, capped))
  }

  /** Takes away all of one, whichever there are, and what was counted of it. */
  async unset({ index, ids }: Pick<LinkRecord, 'index' | 'ids'>): Promise<void> {
    const counts =
      ids === undefined
        ? dropCountsRemoval(CAPS_TABLE, planLink(index).device, [SHAPED])
        : userDropCountsRemoval(CAPS_TABLE, ids.first, [SHAPED])
    await this.#change(index, [], counts)
  }

  async remove(): Promise<void> {
    await this.lay([], [])
  }

  async #change(index: number, after: readonly SharedCap[], rest: readonly string[] = []): Promise<void> {
    if (!this.#isLaid) return
    const before = this.#caps.get(index) ?? []
    const isIn = (caps: readonly SharedCap[], { key, bps }: SharedCap): boolean =>
      caps.some((cap) => cap.key === key && cap.bps === bps)
    await applyRules([
      ...before.filter((cap) => !isIn(after, cap)).flatMap(removal),
      ...after.filter((cap) => !isIn(before, cap)).flatMap(addition),
      ...rest
    ])
    if (after.length === 0) this.#caps.delete(index)
    else this.#caps.set(index, after)
  }
}

/** Where they are less than what bounds them anyway: the cap than the uplinks, a bucket than the cap. */
function capsOf({ rootBps, policy }: SharedCapsInit, { ids, shaped }: Capped): SharedCap[] {
  const { device } = shaped.plan
  const { capBps } = vserverRates(rootBps, shaped.resources, shaped.narrowedBps)
  const cap = { limit: `cap_${device}`, bps: capBps }
  const caps: SharedCap[] = [
    ids === undefined
      ? { ...cap, map: 'links', key: `"${device}"` }
      : { ...cap, map: 'users', key: blockOf(ids.first) }
  ]
  // What users of the node's network send has no class but that of data.
  const buckets = ids === undefined ? cautionBuckets({ policy }, shaped, capBps) : []
  return [
    ...caps.filter(({ bps }) => bps < rootBps),
    ...buckets
      .filter(({ bps }) => bps < capBps)
      .map(({ minor, bps }): SharedCap => ({
        limit: `class_${minor}`,
        map: 'buckets',
        key: `${SHAPING_MAJOR}:${minor}`,
        bps
      }))
  ]
}

function tableLines(uplinks: readonly UplinkPlace[]): readonly string[] {
  const gone = [`add table ${CAPS_TABLE}`, `delete table ${CAPS_TABLE}`]
  if (uplinks.length < 2) return gone
  const by = devicesOf(uplinks)
  const sent = `add rule ${CAPS_TABLE} forwarded iifname ${ANY_LINK} oifname ${by}`
  return [
    ...gone,
    `add table ${CAPS_TABLE}`,
    `add map ${CAPS_TABLE} links { type ifname : limit; }`,
    `add map ${CAPS_TABLE} users { type uid : limit; }`,
    `add map ${CAPS_TABLE} buckets { type classid : limit; }`,
    `add set ${CAPS_TABLE} ${dropCountsSet(1)}`,
    `add set ${CAPS_TABLE} ${userDropCountsSet(1)}`,
    ...chain('over', countDrop(SHAPED)),
    ...chain('over_of_user', countDropOfUser(SHAPED)),
    `add chain ${CAPS_TABLE} forwarded { type filter hook forward priority 10; policy accept; }`,
    // What a bucket has no room for takes none of the cap. The tables before this one have said which class a packet is in.
    `${sent} limit name meta priority map @buckets goto over`,
    `${sent} limit name iifname map @links goto over`,
    `add chain ${CAPS_TABLE} sent { type filter hook output priority 10; policy accept; }`,
    `add rule ${CAPS_TABLE} sent oifname ${by} limit name ${USER_BLOCK} map @users goto over_of_user`
  ]
}

/** One that counts and drops. */
function chain(name: string, count: string): readonly string[] {
  return [
    `add chain ${CAPS_TABLE} ${name}`,
    `add rule ${CAPS_TABLE} ${name} ${count}`,
    `add rule ${CAPS_TABLE} ${name} counter drop`
  ]
}

function addition({ limit, map, key, bps }: SharedCap): readonly string[] {
  const burst = map === 'buckets' ? BUCKET_BURST_BYTES : BURST_BYTES
  return [
    `add limit ${CAPS_TABLE} ${limit} { rate over ${bytesIn(1, bps)} bytes/second burst ${burst} bytes; }`,
    `add element ${CAPS_TABLE} ${map} { ${key} : "${limit}" }`
  ]
}

function removal({ limit, map, key }: SharedCap): readonly string[] {
  return [`delete element ${CAPS_TABLE} ${map} { ${key} }`, `delete limit ${CAPS_TABLE} ${limit}`]
}

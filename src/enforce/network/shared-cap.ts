/**
 * A vserver's cap over all uplinks together: each of them has a class with that cap, and so would let it out as often as there
 * are uplinks. What is more is dropped, whichever uplink it is for. In a table of its own, which counts IPv4 and IPv6 together
 * and stands only where there are several uplinks.
 */
import { ANY_LINK, planLink } from './address-plan.ts'
import { blockOf, USER_BLOCK } from './drop-counts.ts'
import type { LinkRecord } from './link-records.ts'
import { bytesIn } from './rates.ts'
import { applyRules } from './ruleset.ts'
import { devicesOf, type UplinkPlace } from './uplink-rules.ts'

const TABLE = 'inet slicenet_caps'
/** What may come at once, beyond the second's worth that nft adds to it: two of the largest packets that offloading makes. */
const BURST_BYTES = 128 * 1024

/** Of a link, told by its device, or of a vserver that shares the node's network, told by its users. */
interface SharedCap {
  readonly index: number
  readonly ids?: LinkRecord['ids'] | undefined
  /** Bits a second. */
  readonly bps: number
}

/** The caps that are in place. */
export class SharedCaps {
  /** By the link's number. */
  readonly #caps = new Map<number, SharedCap>()
  #isLaid = false

  /** Puts those of these vservers in place, and no others. `capOf`: bits a second, where there is a cap. */
  async lay(
    uplinks: readonly UplinkPlace[],
    records: readonly LinkRecord[],
    capOf: (record: LinkRecord) => number | undefined
  ): Promise<void> {
    this.#isLaid = uplinks.length > 1
    this.#caps.clear()
    const caps = (this.#isLaid ? records : []).flatMap((record) => {
      const bps = capOf(record)
      return bps === undefined ? [] : [{ index: record.index, ids: record.ids, bps }]
    })
    await applyRules([...tableLines(uplinks), ...caps.flatMap(addition)])
    for (const cap of caps) this.#caps.set(cap.index, cap)
  }

  /** Changes one, or takes it away. */
  async set({ index, ids }: Pick<SharedCap, 'index' | 'ids'>, bps: number | undefined): Promise<void> {
    const before = this.#caps.get(index)
    if (!this.#isLaid || before?.bps === bps) return
    const after = bps === undefined ? undefined : { index, ids, bps }
    await applyRules([
      ...(before === undefined ? [] : removal(before)),
      ...(after === undefined ? [] : addition(after))
    ])
    if (after === undefined) this.#caps.delete(index)
    else this.#caps.set(index, after)
  }

  async remove(): Promise<void> {
    await this.lay([], [], () => undefined)
  }
}

function tableLines(uplinks: readonly UplinkPlace[]): readonly string[] {
  const gone = [`add table ${TABLE}`, `delete table ${TABLE}`]
  if (uplinks.length < 2) return gone
  const by = devicesOf(uplinks)
  return [
    ...gone,
    `add table ${TABLE}`,
    `add map ${TABLE} links { type ifname : limit; }`,
    `add map ${TABLE} users { type uid : limit; }`,
    `add chain ${TABLE} forwarded { type filter hook forward priority 10; policy accept; }`,
    `add rule ${TABLE} forwarded iifname ${ANY_LINK} oifname ${by} limit name iifname map @links counter drop`,
    `add chain ${TABLE} sent { type filter hook output priority 10; policy accept; }`,
    `add rule ${TABLE} sent oifname ${by} limit name ${USER_BLOCK} map @users counter drop`
  ]
}

function addition(cap: SharedCap): readonly string[] {
  const { map, key, limit } = namesOf(cap)
  return [
    `add limit ${TABLE} ${limit} { rate over ${bytesIn(1, cap.bps)} bytes/second burst ${BURST_BYTES} bytes; }`,
    `add element ${TABLE} ${map} { ${key} : "${limit}" }`
  ]
}

function removal(cap: SharedCap): readonly string[] {
  const { map, key, limit } = namesOf(cap)
  return [`delete element ${TABLE} ${map} { ${key} }`, `delete limit ${TABLE} ${limit}`]
}

function namesOf({ index, ids }: SharedCap): Readonly<Record<'map' | 'key' | 'limit', string>> {
  const { device } = planLink(index)
  const limit = `cap_${device}`
  return ids === undefined
    ? { map: 'links', key: `"${device}"`, limit }
    : { map: 'users', key: blockOf(ids.first), limit }
}

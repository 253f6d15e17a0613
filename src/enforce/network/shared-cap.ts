/**
 * A vserver's cap over all uplinks together: each of them has a class with that cap, and so would let it out as often as there
 * are uplinks. What is more is dropped as it is forwarded, whichever uplink it is for. In a table of its own, which counts IPv4
 * and IPv6 together and stands only where there are several uplinks.
 */
import { ANY_LINK } from './address-plan.ts'
import { bytesIn } from './rates.ts'
import { devicesOf, type UplinkPlace } from './uplink-rules.ts'

export const CAPS_TABLE = 'inet slicenet_caps'
/** What may come at once: two of the largest packets that offloading makes, or this much time's worth. */
const BURST_BYTES_MIN = 128 * 1024
const BURST_SECONDS = 0.1

/** Lines for nft that put the table in place anew, with these caps (bits a second) by the link's device. */
export function sharedCapLines(
  uplinks: readonly UplinkPlace[],
  caps: ReadonlyMap<string, number>
): readonly string[] {
  const removal = [`add table ${CAPS_TABLE}`, `delete table ${CAPS_TABLE}`]
  if (uplinks.length < 2) return removal
  const chain = `${CAPS_TABLE} forwarding`
  return [
    ...removal,
    `add table ${CAPS_TABLE}`,
    `add map ${CAPS_TABLE} caps { type ifname : limit; }`,
    `add chain ${chain} { type filter hook forward priority 10; policy accept; }`,
    `add rule ${chain} iifname ${ANY_LINK} oifname ${devicesOf(uplinks)} limit name iifname map @caps counter drop`,
    ...[...caps].flatMap(([device, bps]) => addition(device, bps))
  ]
}

/** Lines for nft that change one link's cap; `undefined` where there is none. */
export function capChangeLines(
  device: string,
  { before, after }: { readonly before: number | undefined; readonly after: number | undefined }
): readonly string[] {
  if (before === after) return []
  const removal = [
    `delete element ${CAPS_TABLE} caps { "${device}" }`,
    `delete limit ${CAPS_TABLE} ${limitOf(device)}`
  ]
  return [...(before === undefined ? [] : removal), ...(after === undefined ? [] : addition(device, after))]
}

function addition(device: string, bps: number): readonly string[] {
  const burst = Math.max(BURST_BYTES_MIN, bytesIn(BURST_SECONDS, bps))
  return [
    `add limit ${CAPS_TABLE} ${limitOf(device)} { rate over ${bytesIn(1, bps)} bytes/second burst ${burst} bytes; }`,
    `add element ${CAPS_TABLE} caps { "${device}" : "${limitOf(device)}" }`
  ]
}

function limitOf(device: string): string {
  return `cap_${device}`
}

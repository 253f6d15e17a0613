/**
 * The exclusive things of a node that a ticket names: TCP and UDP ports and ICMP identifiers (paper §3.2, design §3).
 * A range is closed at both ends, as people write port ranges.
 */

export const PORT_PROTOCOLS = ['tcp', 'udp', 'icmp'] as const
export type PortProtocol = (typeof PORT_PROTOCOLS)[number]

/** `first` ≤ `last`, both within 1 … 65535. For `icmp` the numbers are echo identifiers. */
export interface PortRange {
  readonly protocol: PortProtocol
  readonly first: number
  readonly last: number
}

/** Whether every port of `inner` lies in a range of `outer`. */
export function portsWithin(inner: readonly PortRange[], outer: readonly PortRange[]): boolean {
  return inner.every((wanted) => {
    let next = wanted.first
    const candidates = outer
      .filter((range) => range.protocol === wanted.protocol)
      .sort((a, b) => a.first - b.first)
    for (const range of candidates) {
      if (range.first <= next && next <= range.last) next = range.last + 1
    }
    return next > wanted.last
  })
}

export function portsOverlap(a: readonly PortRange[], b: readonly PortRange[]): boolean {
  return a.some((x) => b.some((y) => x.protocol === y.protocol && x.first <= y.last && y.first <= x.last))
}

export function formatPortRange(range: PortRange): string {
  return range.first === range.last
    ? `${range.protocol}/${range.first}`
    : `${range.protocol}/${range.first}-${range.last}`
}

/**
 * The exclusive things of a node that a ticket names: TCP and UDP ports, ICMP identifiers and GRE keys (paper §3.2,
 * design §3). A range is closed at both ends, as people write port ranges.
 */

export const PORT_PROTOCOLS = ['tcp', 'udp', 'icmp', 'gre'] as const
export type PortProtocol = (typeof PORT_PROTOCOLS)[number]

/**
 * `first` ≤ `last`, both within 1 … `portMax(protocol)`. For `icmp` the numbers are identifiers of echo and timestamp, for `gre` the keys of
 * RFC 2890.
 */
export interface PortRange {
  readonly protocol: PortProtocol
  readonly first: number
  readonly last: number
}

/** The largest number of a protocol. */
export function portMax(protocol: PortProtocol): number {
  return protocol === 'gre' ? 0xff_ff_ff_ff : 65_535
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

/** What is left of `ranges` without `taken`, in the same order. */
export function portsWithout(ranges: readonly PortRange[], taken: readonly PortRange[]): PortRange[] {
  return taken.reduce<readonly PortRange[]>(
    (left, hole) =>
      left.flatMap((range) =>
        portsOverlap([range], [hole])
          ? [
              { ...range, last: hole.first - 1 },
              { ...range, first: hole.last + 1 }
            ].filter(({ first, last }) => first <= last)
          : [range]
      ),
    ranges
  ) as PortRange[]
}

export function formatPortRange(range: PortRange): string {
  return range.first === range.last
    ? `${range.protocol}/${range.first}`
    : `${range.protocol}/${range.first}-${range.last}`
}

export function formatPortRanges(ranges: readonly PortRange[]): string {
  return ranges.map(formatPortRange).join(', ') || 'none'
}

/** Reads `tcp/20000-29999` or `udp/53`; `undefined` when it is no range. */
export function parsePortRange(text: string): PortRange | undefined {
  const match = /^([a-z]+)\/(\d{1,10})(?:-(\d{1,10}))?$/.exec(text)
  if (match === null) return undefined
  const [, protocol, from, to] = match
  const first = Number(from)
  const last = Number(to ?? from)
  if (!isPortProtocol(protocol) || first < 1 || last < first || last > portMax(protocol)) return undefined
  return { protocol, first, last }
}

export function isPortProtocol(text: string | undefined): text is PortProtocol {
  return PORT_PROTOCOLS.some((protocol) => protocol === text)
}

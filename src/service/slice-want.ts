/** What a slice needs of nodes, of all that its description says. Pure. */
import type { Want } from '../protocol/broker-protocol.ts'
import type { SliceDescription } from './slice.ts'

export function wantOf(description: SliceDescription): Want {
  const { count, minimum, query, distinct, spread, rank, pairwise } = description
  const { resources, ports, rights, shaping, leaseMs, image } = description
  return {
    count,
    minimum,
    ...(query === undefined ? {} : { query }),
    ...(distinct === undefined ? {} : { distinct }),
    ...(spread === undefined ? {} : { spread }),
    ...(rank === undefined ? {} : { rank }),
    ...(pairwise === undefined ? {} : { pairwise }),
    resources,
    ports,
    rights,
    ...(shaping === undefined ? {} : { shaping }),
    durationMs: leaseMs,
    image
  }
}

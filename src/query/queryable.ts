/** What a query sees of a node (design §4). Pure. */
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { ResourceName } from '../ticket/resources.ts'

export type Queryable = Readonly<Record<string, unknown>>

/** What is measured, or vouched for by the signature: what a node says of itself does not hide it. */
const FIELDS: ReadonlyMap<string, (advert: NodeAdvertisement) => unknown> = new Map<
  string,
  (advert: NodeAdvertisement) => unknown
>([
  ['id', ({ issuer }) => issuer],
  ['name', ({ name }) => name],
  ['cpu', pair('cpuMillis')],
  ['memory', pair('memoryBytes')],
  ['disk', pair('diskBytes')],
  ['egress', pair('egressBps')],
  ['pids', pair('pids')],
  ['agents', ({ agents }) => agents],
  ['images', ({ images }) => Object.keys(images)],
  ['rights', ({ rights }) => rights ?? []]
])

/**
 * The node as a map; amounts are integers in the units of `Resources`, CPU in thousandths of a core. With `names` only
 * what these name: a table of adverts is gone over in the time that this takes.
 */
export function queryable(advert: NodeAdvertisement, names?: ReadonlySet<string>): Queryable {
  const { attributes } = advert
  const seen: Record<string, unknown> = {}
  for (const name of names ?? new Set([...Object.keys(attributes), ...FIELDS.keys()])) {
    const field = FIELDS.get(name)
    if (field !== undefined) seen[name] = field(advert)
    else if (Object.hasOwn(attributes, name)) seen[name] = typed(attributes[name])
  }
  return seen
}

/** CEL's integers are of any size. */
function typed(value: string | number | undefined): unknown {
  return typeof value === 'number' ? BigInt(value) : value
}

function pair(name: ResourceName): (advert: NodeAdvertisement) => unknown {
  return ({ capacity, free }) => ({ capacity: BigInt(capacity[name]), free: BigInt(free[name]) })
}

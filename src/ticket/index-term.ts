/**
 * Terms: what a query demands of a node that agents can be found by in the DHT, such as a region or a class of capacity
 * (design §4). An agent announces itself under the terms that some node of its own meets, so one look-up names all who
 * may have what is wanted; the rest of a query is evaluated where the adverts are. Pure.
 */
import type { NodeAdvertisement } from './advertisement.ts'
import type { Resources } from './resources.ts'

/** Attributes that are indexed by their value. */
export const INDEXED_ATTRIBUTES = ['region', 'organisation', 'site', 'country', 'arch', 'os'] as const
export type IndexedAttribute = (typeof INDEXED_ATTRIBUTES)[number]

const GIB = 1024 ** 3

/** Quantities, and the classes of each: whoever has at least so much is indexed under it, so a range is one look-up. */
const CLASSES = {
  cpu: [1000, 4000, 16_000, 64_000],
  memory: [GIB, 4 * GIB, 16 * GIB, 64 * GIB, 256 * GIB],
  disk: [16 * GIB, 64 * GIB, 256 * GIB, 1024 * GIB],
  egress: [10_000_000, 100_000_000, 1_000_000_000]
} as const
export type Quantity = keyof typeof CLASSES
export const QUANTITIES = Object.keys(CLASSES) as readonly Quantity[]

/** The resource that a quantity is, in its unit. */
const RESOURCE = {
  cpu: 'cpuMillis',
  memory: 'memoryBytes',
  disk: 'diskBytes',
  egress: 'egressBps'
} as const satisfies Record<Quantity, keyof Resources>

export type IndexTerm =
  | { readonly attribute: IndexedAttribute; readonly equals: string }
  /** In the unit of `Resources`; at least so much capacity. */
  | { readonly quantity: Quantity; readonly atLeast: number }

export function isIndexedAttribute(name: string): name is IndexedAttribute {
  return INDEXED_ATTRIBUTES.some((indexed) => indexed === name)
}

export function isQuantity(name: string): name is Quantity {
  return Object.hasOwn(CLASSES, name)
}

/** The key of a term, as text; `undefined` for a range so low that almost everybody meets it. */
export function indexKey(term: IndexTerm): string | undefined {
  if ('attribute' in term) return `${term.attribute}=${encodeURIComponent(term.equals)}`
  const reached = CLASSES[term.quantity].findLast((bound) => bound <= term.atLeast)
  return reached === undefined ? undefined : `${term.quantity}>=${reached}`
}

/**
 * The keys of all terms that some of these nodes meet, those that most of them meet first, of such as many meet places
 * before amounts; at most `max`.
 */
export function indexKeysOf(adverts: readonly NodeAdvertisement[], max: number): string[] {
  const counts = new Map<string, number>()
  for (const advert of adverts) {
    for (const key of keysOf(advert)) counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  return [...counts]
    .sort(([a, ofA], [b, ofB]) => ofB - ofA || kindOf(a) - kindOf(b) || (a < b ? -1 : 1))
    .slice(0, max)
    .map(([key]) => key)
}

function kindOf(key: string): number {
  const place = INDEXED_ATTRIBUTES.findIndex((attribute) => key.startsWith(`${attribute}=`))
  return place === -1 ? INDEXED_ATTRIBUTES.length : place
}

function keysOf({ attributes, capacity }: NodeAdvertisement): string[] {
  const values = INDEXED_ATTRIBUTES.flatMap((attribute) => {
    const value = attributes[attribute]
    return typeof value === 'string' ? (indexKey({ attribute, equals: value }) ?? []) : []
  })
  const classes = QUANTITIES.flatMap((quantity) =>
    CLASSES[quantity]
      .filter((bound) => capacity[RESOURCE[quantity]] >= bound)
      .map((bound) => `${quantity}>=${bound}`)
  )
  return [...values, ...classes]
}

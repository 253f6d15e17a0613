/**
 * What a ticket or lease is for: amounts of a node's resources, all non-negative integers, and their arithmetic.
 * Paper §2.2 and §3.3; the list is design §3's.
 */

/**
 * The resources in the order they are printed.
 * `cpuMillis` (thousandths of a core) and `egressBps` (bits a second) are guarantees; the `…Max` beside each is the
 * cap up to which idle capacity may be used. Only what is guaranteed is summed in admission control.
 */
export const RESOURCE_NAMES = [
  'cpuMillis',
  'cpuMillisMax',
  'memoryBytes',
  'diskBytes',
  'egressBps',
  'egressBpsMax',
  'egressBytesPerDay',
  'pids'
] as const
export type ResourceName = (typeof RESOURCE_NAMES)[number]
export type Resources = Readonly<Record<ResourceName, number>>

/** Caps are not consumed: two vservers may both be allowed the whole of an idle core. */
export const CAPS: ReadonlySet<ResourceName> = new Set(['cpuMillisMax', 'egressBpsMax'])

export const NO_RESOURCES: Resources = {
  cpuMillis: 0,
  cpuMillisMax: 0,
  memoryBytes: 0,
  diskBytes: 0,
  egressBps: 0,
  egressBpsMax: 0,
  egressBytesPerDay: 0,
  pids: 0
}

function map(f: (name: ResourceName) => number): Resources {
  const amounts: Record<ResourceName, number> = { ...NO_RESOURCES }
  for (const name of RESOURCE_NAMES) amounts[name] = f(name)
  return amounts
}

/** Sums what is consumed; of caps, which are not, the larger. */
export function addResources(a: Resources, b: Resources): Resources {
  return map((name) => (CAPS.has(name) ? Math.max(a[name], b[name]) : a[name] + b[name]))
}

/** What is left of `a` when `b` is taken; never below zero. Caps stay as they are. */
export function subtractResources(a: Resources, b: Resources): Resources {
  return map((name) => (CAPS.has(name) ? a[name] : Math.max(0, a[name] - b[name])))
}

/** `a × percent / 100`, rounded down; caps stay as they are. */
export function scaleResources(a: Resources, percent: number): Resources {
  return map((name) => (CAPS.has(name) ? a[name] : Math.floor((a[name] * percent) / 100)))
}

/** The resources that are consumed, and summed. */
export const SUMMED_RESOURCES = RESOURCE_NAMES.filter((name) => !CAPS.has(name))

/** Of each resource the larger amount. */
export function largerResources(a: Resources, b: Resources): Resources {
  return map((name) => Math.max(a[name], b[name]))
}

/** The resources of which `a` has more than `b`; empty when `a` fits within `b`. */
export function resourcesExceeding(a: Resources, b: Resources): ResourceName[] {
  return RESOURCE_NAMES.filter((name) => a[name] > b[name])
}

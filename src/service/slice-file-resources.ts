/** The `resources` of a slice description: their units, and the small defaults of those left out. */
import { byteUnit, countUnit, cpuUnit, rateUnit, type Unit } from '../base/units.ts'
import type { Resources } from '../ticket/resources.ts'
import type { YamlMap, YamlValue } from './yaml-reader.ts'

const FIELDS = ['cpu', 'cpuMax', 'memory', 'disk', 'egress', 'egressMax', 'egressPerDay', 'pids'] as const
type Field = (typeof FIELDS)[number]

const MIB = 1024 * 1024
export const DEFAULT_RESOURCES: Resources = {
  cpuMillis: 100,
  cpuMillisMax: 1000,
  memoryBytes: 64 * MIB,
  diskBytes: 64 * MIB,
  egressBps: 1_000_000,
  egressBpsMax: 10_000_000,
  egressBytesPerDay: 1024 * MIB,
  pids: 64
}

export function readResources(value: YamlValue | undefined): Resources {
  const fields = value?.map(FIELDS)
  const amount = (field: Field, unit: Unit, fallback: number): number =>
    fields?.get(field)?.amount(unit) ?? fallback
  const cpuMillis = amount('cpu', cpuUnit, DEFAULT_RESOURCES.cpuMillis)
  const egressBps = amount('egress', rateUnit, DEFAULT_RESOURCES.egressBps)
  const resources = {
    cpuMillis,
    cpuMillisMax: amount('cpuMax', cpuUnit, Math.max(cpuMillis, DEFAULT_RESOURCES.cpuMillisMax)),
    memoryBytes: amount('memory', byteUnit, DEFAULT_RESOURCES.memoryBytes),
    diskBytes: amount('disk', byteUnit, DEFAULT_RESOURCES.diskBytes),
    egressBps,
    egressBpsMax: amount('egressMax', rateUnit, Math.max(egressBps, DEFAULT_RESOURCES.egressBpsMax)),
    egressBytesPerDay: amount('egressPerDay', byteUnit, DEFAULT_RESOURCES.egressBytesPerDay),
    pids: amount('pids', countUnit, DEFAULT_RESOURCES.pids)
  }
  checkCap(fields, 'cpuMax', 'cpu', resources.cpuMillisMax, resources.cpuMillis)
  checkCap(fields, 'egressMax', 'egress', resources.egressBpsMax, resources.egressBps)
  return resources
}

function checkCap(
  fields: YamlMap<Field> | undefined,
  cap: Field,
  guarantee: Field,
  most: number,
  least: number
): void {
  if (most < least) fields?.get(cap)?.problem(`must not be less than ${guarantee}, which it caps`)
}

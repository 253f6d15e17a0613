/** The `shaping` of a slice description, and of a rule of an agent's policy: rates with their units, numbers without. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { rateUnit } from '../base/units.ts'
import { DESTINATIONS_PER_MINUTE, EGRESS_SHARE, SHAPING_BPS_MIN, type Shaping } from '../ticket/shaping.ts'
import type { YamlMap, YamlValue } from './yaml-reader.ts'

const FIELDS = ['icmp', 'options', 'newDestinations', 'destinationsPerMinute', 'egressShare'] as const
type Field = (typeof FIELDS)[number]

const within = (min: number, max: number) =>
  v.pipe(
    v.number(),
    v.integer(),
    v.minValue(min, `expected at least ${min}`),
    v.maxValue(max, `expected at most ${max}`)
  )
const destinationsSchema = within(DESTINATIONS_PER_MINUTE.min, DESTINATIONS_PER_MINUTE.max)
const shareSchema = within(EGRESS_SHARE.usual, EGRESS_SHARE.max)

/** `undefined` where nothing is said. */
export function readShaping(value: YamlValue | undefined): Shaping | undefined {
  const fields = value?.map(FIELDS)
  const amounts = {
    icmpBps: readRate(fields, 'icmp'),
    optionsBps: readRate(fields, 'options'),
    newDestinationsBps: readRate(fields, 'newDestinations'),
    destinationsPerMinute: fields?.get('destinationsPerMinute')?.integer(destinationsSchema),
    egressShare: fields?.get('egressShare')?.integer(shareSchema)
  }
  const said = Object.entries(amounts).filter(([, amount]) => amount !== undefined)
  if (value?.isMap() === true && FIELDS.every((field) => fields?.get(field) === undefined)) {
    value.problem(`expected one of ${FIELDS.join(', ')}`)
  }
  return said.length === 0 ? undefined : Object.fromEntries(said)
}

function readRate(fields: YamlMap<Field> | undefined, field: Field): number | undefined {
  const value = fields?.get(field)
  const bps = value?.amount(rateUnit)
  if (value === undefined || bps === undefined) return undefined
  if (bps < SHAPING_BPS_MIN) value.problem(`expected at least ${rateUnit.format(SHAPING_BPS_MIN)}`)
  if (bps > LIMITS.rateBpsMax) value.problem(`expected at most ${rateUnit.format(LIMITS.rateBpsMax)}`)
  return bps
}

/** Schemas of resources, ports, rights and shaping, shared by the objects and messages that carry them. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import type { Schema } from '../wire/codec.ts'
import { portMax, PORT_PROTOCOLS, type PortRange } from './ports.ts'
import { RESOURCE_NAMES, type ResourceName, type Resources } from './resources.ts'
import { RIGHTS, type Right } from './rights.ts'
import {
  DESTINATIONS_PER_MINUTE,
  EGRESS_SHARE,
  SHAPING_BPS_MIN,
  SHAPING_NAMES,
  type Shaping
} from './shaping.ts'
import { amountSchema } from './signed-object.ts'

const amounts = Object.fromEntries(RESOURCE_NAMES.map((name) => [name, amountSchema]))
export const resourcesSchema: Schema<Resources> = v.strictObject(
  amounts as Record<ResourceName, typeof amountSchema>
)

const portSchema = v.pipe(v.number(), v.integer(), v.minValue(1))
export const portRangeSchema: Schema<PortRange> = v.pipe(
  v.strictObject({ protocol: v.picklist(PORT_PROTOCOLS), first: portSchema, last: portSchema }),
  v.check((range) => range.first <= range.last, 'first must not exceed last'),
  v.check((range) => range.last <= portMax(range.protocol), 'expected a number that the protocol has')
)
export const portsSchema: Schema<readonly PortRange[]> = v.pipe(
  v.array(portRangeSchema),
  v.maxLength(LIMITS.portRangesPerTicketMax)
)

export const rightsSchema: Schema<readonly Right[]> = v.pipe(
  v.array(v.picklist(RIGHTS)),
  v.maxLength(RIGHTS.length),
  v.check((rights) => new Set(rights).size === rights.length, 'expected every right once')
)

const within = (min: number, max: number) =>
  v.exactOptional(v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max)))
const rateSchema = within(SHAPING_BPS_MIN, LIMITS.rateBpsMax)
/** Never empty: who says nothing leaves the whole of it out. */
export const shapingSchema: Schema<Shaping> = v.pipe(
  v.strictObject({
    icmpBps: rateSchema,
    optionsBps: rateSchema,
    newDestinationsBps: rateSchema,
    destinationsPerMinute: within(DESTINATIONS_PER_MINUTE.min, DESTINATIONS_PER_MINUTE.max),
    egressShare: within(1, EGRESS_SHARE.max)
  }),
  v.check((shaping) => SHAPING_NAMES.some((name) => shaping[name] !== undefined), 'expected something in it')
)

/** A slice's name: a host name's label. */
export const sliceNameSchema = v.pipe(
  v.string(),
  v.regex(/^[a-z][a-z0-9-]{0,30}[a-z0-9]$/, 'expected 2 to 32 of a-z, 0-9 and -, beginning with a letter')
)

/** An image by content. */
export const imageIdSchema = v.pipe(
  v.string(),
  v.regex(/^sha256:[0-9a-f]{64}$/, 'expected sha256:<64 hex digits>')
)

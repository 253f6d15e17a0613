/** What the record of flows holds: who had which ports from when to when, the flows of each, and what may be missing. */
import { promisify } from 'node:util'
import { deflateRaw, inflateRaw } from 'node:zlib'
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { amountSchema, idSchema, timeSchema } from '../ticket/signed-object.ts'
import { PORT_PROTOCOLS } from '../ticket/ports.ts'
import { principalSchema } from '../ticket/principal.ts'
import { portsSchema } from '../ticket/resource-schema.ts'
import { cborCodec } from '../wire/codec.ts'

const port = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535))
const text = v.pipe(v.string(), v.maxLength(128))
const whose = { lease: idSchema, slice: text, principal: principalSchema }

/** Who had a vserver, and with it its ports. */
export const tenureSchema = v.strictObject({
  kind: v.literal('tenure'),
  ...whose,
  vserver: text,
  ports: portsSchema,
  /** UTC ms; without `until` it had not ended when this was written. It is over at `notAfter` whether or not that was noted. */
  from: timeSchema,
  notAfter: timeSchema,
  until: v.exactOptional(timeSchema)
})
export type Tenure = v.InferOutput<typeof tenureSchema>

/** Until when it lasted, or will at most: UTC ms. */
export function endOf({ until, notAfter }: Tenure): number {
  return Math.min(until ?? notAfter, notAfter)
}

export const flowEntrySchema = v.strictObject({
  kind: v.literal('flow'),
  /** Tells it from others of the same time; later entries of one flow count what the earlier ones did and more. */
  flow: text,
  vserver: text,
  /** Absent where nobody is known to have had the vserver. */
  lease: v.exactOptional(whose.lease),
  slice: v.exactOptional(whose.slice),
  principal: v.exactOptional(whose.principal),
  protocol: v.picklist(PORT_PROTOCOLS),
  /** As the world saw it. Of ICMP the port is the identifier, and the other 0; both are 0 where they were not looked at. */
  localAddress: text,
  localPort: port,
  remoteAddress: text,
  remotePort: port,
  begunBy: v.picklist(['vserver', 'remote']),
  /** UTC ms. */
  first: timeSchema,
  last: timeSchema,
  sentPackets: amountSchema,
  sentBytes: amountSchema,
  receivedPackets: amountSchema,
  receivedBytes: amountSchema,
  isTracked: v.boolean(),
  isOpen: v.boolean()
})
export type FlowEntry = v.InferOutput<typeof flowEntrySchema>

const gapSchema = v.strictObject({
  kind: v.literal('gap'),
  time: timeSchema,
  /** Since the node began: see `FlowLosses`. */
  overruns: amountSchema,
  skipped: amountSchema,
  unreadable: amountSchema
})

/** Nobody watched: connections that began and ended meanwhile are not known. UTC ms; it may have begun up to a minute later. */
export const unwatchedSchema = v.strictObject({
  kind: v.literal('unwatched'),
  from: timeSchema,
  to: timeSchema
})
export type Unwatched = v.InferOutput<typeof unwatchedSchema>

/** Somebody watched, and there was nothing else to say for a while. */
const watchedSchema = v.strictObject({ kind: v.literal('watched'), time: timeSchema })

export type LogEntry =
  | Tenure
  | FlowEntry
  | Unwatched
  | v.InferOutput<typeof gapSchema>
  | v.InferOutput<typeof watchedSchema>

const entriesCodec = cborCodec<LogEntry[]>(
  v.pipe(
    v.array(v.variant('kind', [tenureSchema, flowEntrySchema, gapSchema, unwatchedSchema, watchedSchema])),
    v.maxLength(LIMITS.flowsPerRecordMax)
  ),
  { bytesMax: LIMITS.flowRecordBytesMax, depthMax: 5 }
)

const [pack, unpack] = [promisify(deflateRaw), promisify(inflateRaw)]

export async function encodeEntries(entries: readonly LogEntry[]): Promise<Uint8Array> {
  return pack(entriesCodec.encode([...entries]))
}

/** Throws `ENCODING_INVALID`. */
export async function decodeEntries(bytes: Uint8Array): Promise<LogEntry[]> {
  try {
    return entriesCodec.decode(await unpack(bytes, { maxOutputLength: LIMITS.flowRecordBytesMax }))
  } catch (cause) {
    throw new SlicenetError('ENCODING_INVALID', 'a piece of the record of flows cannot be read', { cause })
  }
}

/** What the control socket has for administrators of nodes about the flows of their vservers. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import {
  flowEntrySchema,
  tenureSchema,
  unwatchedSchema,
  type FlowEntry,
  type Tenure,
  type Unwatched
} from '../node/flow-entries.ts'
import { PORT_PROTOCOLS, formatPortRange, portMax, type PortProtocol } from '../ticket/ports.ts'
import { amountSchema, timeSchema } from '../ticket/signed-object.ts'
import { byteString } from '../wire/codec.ts'

export type { FlowEntry, Tenure, Unwatched }
export { PORT_PROTOCOLS, formatPortRange, portMax, type PortProtocol }

const emptySchema = v.strictObject({})

const verdictSchema = v.strictObject({
  faults: v.array(v.string()),
  firstPiece: amountSchema,
  lastPiece: amountSchema,
  roots: amountSchema,
  signedAt: v.exactOptional(timeSchema),
  signedPiece: v.exactOptional(amountSchema),
  /** The latest. */
  unwatched: v.array(unwatchedSchema)
})
export type LogVerdictView = v.InferOutput<typeof verdictSchema>

/** All throw `NOT_FOUND` on a peer that is no node. */
export const flowMethods = {
  /** Streams the flows that had packets in [since, until), UTC ms, some at a time, and when nobody watched. */
  nodeFlows: {
    params: v.strictObject({ since: timeSchema, until: timeSchema }),
    item: v.strictObject({ flows: v.array(v.variant('kind', [flowEntrySchema, unwatchedSchema])) }),
    result: emptySchema
  },
  /** Whose packets somebody complains of; see `Complaint`. */
  nodeWhois: {
    params: v.strictObject({
      time: timeSchema,
      withinMs: amountSchema,
      address: v.pipe(v.string(), v.ip()),
      port: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(portMax('gre'))),
      protocol: v.exactOptional(v.picklist(PORT_PROTOCOLS))
    }),
    result: v.strictObject({
      flows: v.array(flowEntrySchema),
      owners: v.array(tenureSchema),
      unwatched: v.array(unwatchedSchema)
    })
  },
  /** Compares the log with the roots that were signed, and with one that was kept elsewhere. */
  nodeAuditVerify: {
    params: v.strictObject({ root: v.exactOptional(byteString(1, LIMITS.objectBytesMax)) }),
    result: verdictSchema
  },
  /** The last signed root; with `sign`, one of now. Throws `NOT_FOUND` while there is none. */
  nodeAuditRoot: {
    params: v.strictObject({ sign: v.boolean() }),
    result: v.strictObject({
      root: byteString(1, LIMITS.objectBytesMax),
      time: timeSchema,
      piece: amountSchema
    })
  }
} as const

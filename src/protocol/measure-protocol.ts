/** How peers measure the network between them: coordinates, round-trip times to others, and what an uplink carries. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { coordinateSchema } from '../ticket/coordinate.ts'
import { principalSchema } from '../ticket/principal.ts'
import { amountSchema } from '../ticket/signed-object.ts'
import { byteString } from '../wire/codec.ts'
import { emptySchema } from './agent-protocol.ts'

/** Of what one message of the input carries. */
export const CHUNK_BYTES_MAX = 64 * 1024

export const measureProtocol = {
  id: '/slicenet/measure/1.0.0',
  methods: {
    /** Where the callee is, by its own measurements; the caller times a ping beside it. */
    coordinate: { params: emptySchema, result: v.strictObject({ coordinate: coordinateSchema }) },
    /** The callee pings others, so that an estimate can be checked before a slice rests on it. Throws `BUSY`. */
    ping: {
      params: v.strictObject({
        targets: v.pipe(v.array(principalSchema), v.minLength(1), v.maxLength(LIMITS.pingTargetsMax))
      }),
      /** In the order of the targets; null for those that the callee does not reach or know. */
      result: v.strictObject({
        rttMicros: v.pipe(v.array(v.nullable(amountSchema)), v.maxLength(LIMITS.pingTargetsMax))
      })
    },
    /**
     * Takes bytes and throws them away: the caller measures its uplink. Agents do. Throws `BUSY`, `TOO_LARGE`, `TIMEOUT`, and
     * `DENIED` where this is not done.
     */
    sink: {
      params: emptySchema,
      input: v.strictObject({ bytes: byteString(0, CHUNK_BYTES_MAX) }),
      /** What came in, and the time from the first byte to the last. */
      result: v.strictObject({ bytes: amountSchema, micros: amountSchema })
    }
  }
} as const

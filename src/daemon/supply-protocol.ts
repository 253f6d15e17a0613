/** What the control socket has for images of other nodes. */
import * as v from 'valibot'
import { principalSchema } from '../ticket/principal.ts'
import { imageIdSchema } from '../ticket/resource-schema.ts'
import { amountSchema, timeSchema } from '../ticket/signed-object.ts'

export const imageViewSchema = v.strictObject({
  id: imageIdSchema,
  names: v.array(v.string()),
  bytes: amountSchema,
  entries: amountSchema,
  importedAt: timeSchema
})

export const supplyMethods = {
  /**
   * Has an image of another node come into the store of this machine, and a name point to it. Streams how much came, now
   * and then. Throws `IMAGE_MISSING`, `IMAGE_INVALID`, `TOO_LARGE`, `NOT_ROOT`, `BUSY`; as `ping` for the peer.
   */
  imageFetch: {
    params: v.strictObject({
      image: imageIdSchema,
      /** A peer to have it of, and of nobody else, named as for `ping`. */
      from: v.exactOptional(v.pipe(v.string(), v.minLength(1), v.maxLength(512))),
      name: v.exactOptional(v.pipe(v.string(), v.maxLength(64)))
    }),
    item: v.strictObject({ bytes: amountSchema, from: principalSchema }),
    result: imageViewSchema
  }
} as const

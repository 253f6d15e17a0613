/** How nodes have images of each other: by content id alone, so that whoever gets one can check it. */
import * as v from 'valibot'
import { imageIdSchema } from '../ticket/resource-schema.ts'
import { amountSchema } from '../ticket/signed-object.ts'
import { byteString } from '../wire/codec.ts'

export const CHUNK_BYTES_MAX = 64 * 1024

export const imageProtocol = {
  id: '/slicenet/image/1.0.0',
  methods: {
    /**
     * Streams the normalised archive of an image, whose SHA-256 is its id, from `offset` on: the bytes of one id are the
     * same wherever they come from, so another peer can go on where one was cut off. Throws `IMAGE_MISSING`, `BUSY`,
     * `TIMEOUT` when it takes so long that others are to have their turn.
     */
    fetch: {
      params: v.strictObject({ image: imageIdSchema, offset: amountSchema }),
      item: v.strictObject({ bytes: byteString(1, CHUNK_BYTES_MAX) }),
      /** Bytes of the whole archive. */
      result: v.strictObject({ bytes: amountSchema })
    }
  }
} as const

/**
 * Log roots: a node signs how far its log of flows goes and by which hash, now and then. Whoever has one can tell that the
 * log was cut or altered since; the node cannot say later that it noted something else.
 */
import * as v from 'valibot'
import { byteString } from '../wire/codec.ts'
import { amountSchema, defineObject, signedEntries } from './signed-object.ts'

const placeSchema = v.strictObject({
  /** Of the last piece before the place; 0 for none. */
  sequence: amountSchema,
  /** SHA-256 that vouches for everything up to it. */
  link: byteString(32, 32)
})

const schema = v.strictObject({
  // The interval: from the root before, or the log's beginning, until this one.
  ...signedEntries,
  log: v.picklist(['flows']),
  /** Where what is kept begins, and where the log ended when this was signed. */
  begin: placeSchema,
  head: placeSchema
})

export type LogRoot = v.InferOutput<typeof schema>
export const logRootObject = defineObject<LogRoot>('log-root', schema)

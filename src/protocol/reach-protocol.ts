/**
 * Whether a peer is reached from outside: AutoNAT's question, asked by a call of this overlay. libp2p's own service asks
 * about public addresses only, and its answerer closes the very connection that it is asked over.
 */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { amountSchema } from '../ticket/signed-object.ts'

export const reachProtocol = {
  id: '/slicenet/reach/1.0.0',
  methods: {
    /**
     * The callee dials the caller, at those of the addresses that are on the host which it sees the call come from, so that
     * nobody can have others dialed. `tried` is how many those were; none when the caller is behind a NAT. That the caller
     * is reached shows by the connection that comes in, not by the answer. Throws `BUSY`.
     */
    dialBack: {
      params: v.strictObject({
        addresses: v.pipe(
          v.array(v.pipe(v.string(), v.maxLength(256))),
          v.minLength(1),
          v.maxLength(LIMITS.dialBackAddressesMax)
        )
      }),
      result: v.strictObject({ tried: amountSchema, reached: v.boolean() })
    }
  }
} as const

/**
 * How a peer shows who vouches for it to peers that ask who connects. A peer whose policy speaks of organisations serves
 * this; whoever connects to one that does calls it by itself.
 */
import * as v from 'valibot'
import { membershipsSchema } from '../ticket/advertisement.ts'

export const membershipProtocol = {
  id: '/slicenet/membership/1.0.0',
  methods: {
    /** Takes the place of what was shown before over connections that are open. Throws `BUSY` when it comes too often. */
    show: {
      params: v.strictObject({ memberships: membershipsSchema }),
      /** Whether the caller is let in now. If not, its connections are closed soon. */
      result: v.strictObject({ admitted: v.boolean() })
    }
  }
} as const

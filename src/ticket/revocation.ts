/**
 * Revocations: who issued a ticket or delegation, or anybody above in its chain, takes it back (design §3). What is
 * revoked is not redeemed or renewed any more, nor is anything cut from it; leases in force go on to their end.
 */
import * as v from 'valibot'
import type { Chain } from './chain.ts'
import { contains } from './interval.ts'
import { principalSchema, type Principal } from './principal.ts'
import type { Reason } from './refusal.ts'
import { amountSchema, defineObject, idSchema, signedEntries, type Signed } from './signed-object.ts'

const schema = v.strictObject({
  // The interval is how long it holds.
  ...signedEntries,
  /** The node at which the tickets would be redeemed. */
  node: principalSchema,
  /** One object, or every ticket of `issuer` for this node whose sequence number is below `beforeSeq`. */
  target: v.union([
    v.strictObject({ id: idSchema }),
    v.strictObject({ issuer: principalSchema, beforeSeq: amountSchema })
  ])
})

export type Revocation = v.InferOutput<typeof schema>
export const revocationObject = defineObject<Revocation>('revocation', schema)

/** The reason to refuse a chain because one of its links is revoked; `undefined` when none is. `now` is UTC ms. */
export function revocationFault(
  { delegation, tickets }: Chain,
  revocations: Iterable<Signed<Revocation>>,
  now: number
): Reason | undefined {
  const links = [delegation, ...tickets]
  for (const revocation of revocations) {
    if (!contains(revocation.body, now)) continue
    const place = links.findIndex((link) => isTarget(revocation.body, link))
    if (place === -1 || !mayRevoke(revocation.body.issuer, links.slice(0, place + 1))) continue
    const evidence = [revocation.id, ...(links[place] === undefined ? [] : [links[place].id])]
    return { code: 'TICKET_REVOKED', message: `revoked by ${revocation.body.issuer}`, evidence }
  }
  return undefined
}

type Link = Chain['delegation'] | Chain['tickets'][number]

function isTarget({ target }: Revocation, link: Link): boolean {
  if ('id' in target) return target.id === link.id
  return 'parent' in link.body && link.body.issuer === target.issuer && link.body.seq < target.beforeSeq
}

/** The issuers of a link and of those above it, the delegating node among them. */
function mayRevoke(principal: Principal, links: readonly Link[]): boolean {
  return links.some(({ body }) => body.issuer === principal)
}

/** Whether a principal has a say in what hangs from a chain: it issued a link, or holds the last. */
export function hasStanding(principal: Principal, { delegation, tickets }: Chain): boolean {
  const links = [delegation, ...tickets]
  return mayRevoke(principal, links) || links.at(-1)?.body.holder === principal
}

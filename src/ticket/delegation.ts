/**
 * Delegations: a node lets an agent issue tickets for a share of it. The root of every ticket chain; there is no
 * authority above the node itself (design §3).
 *
 * Everything that the agent ever issued under a delegation counts against it for the whole term signed, whatever became
 * of it, so that the signed objects alone show whether the agent kept to it. What comes free early comes back with the
 * next delegation, in which the node says which earlier tickets still count.
 */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { principalSchema } from './principal.ts'
import { portsSchema, resourcesSchema, rightsSchema, shapingSchema } from './resource-schema.ts'
import { amountSchema, defineObject, idSchema, signedEntries } from './signed-object.ts'

const schema = v.strictObject({
  ...signedEntries,
  /** The agent. */
  holder: principalSchema,
  resources: resourcesSchema,
  ports: portsSchema,
  rights: rightsSchema,
  /** What the tickets cut from it may say; absent: no more bounds than the node keeps to anyway, and the usual share. */
  shaping: v.exactOptional(shapingSchema),
  /** How much of `resources` the agent may have issued at any instant: 100 is all of it, 150 half as much again. */
  overbookPercent: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1000)),
  /** Tickets that may hang below one another; 1 means the agent's own only. */
  maxDepth: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(LIMITS.chainLinksMax)),
  /** The epoch of the node's adverts when it was signed. */
  epoch: amountSchema,
  /** Tickets under earlier delegations to this agent that count beside those under this one; sorted. */
  counts: v.pipe(
    v.array(idSchema),
    v.maxLength(LIMITS.countedTicketsMax),
    v.check(
      (ids) => ids.every((id, index) => index === 0 || (ids[index - 1] ?? '') < id),
      'expected sorted ids, each once'
    )
  )
})

export type Delegation = v.InferOutput<typeof schema>
export const delegationObject = defineObject<Delegation>('delegation', schema)

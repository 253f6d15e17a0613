/**
 * Delegations: a node lets an agent issue tickets for a share of it. The root of every ticket chain; there is no
 * authority above the node itself (design §3).
 */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { principalSchema } from './principal.ts'
import { portsSchema, resourcesSchema, rightsSchema } from './resource-schema.ts'
import { defineObject, signedEntries } from './signed-object.ts'

const schema = v.strictObject({
  ...signedEntries,
  /** The agent. */
  holder: principalSchema,
  resources: resourcesSchema,
  ports: portsSchema,
  rights: rightsSchema,
  /** How much of `resources` the agent may have issued at any instant: 100 is all of it, 150 half as much again. */
  overbookPercent: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1000)),
  /** Tickets that may hang below one another; 1 means the agent's own only. */
  maxDepth: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(LIMITS.chainLinksMax))
})

export type Delegation = v.InferOutput<typeof schema>
export const delegationObject = defineObject<Delegation>('delegation', schema)

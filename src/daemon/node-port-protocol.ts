/** What the control socket tells of the ports of a node. */
import * as v from 'valibot'
import { emptySchema } from '../protocol/agent-protocol.ts'
import { PORT_PROTOCOLS } from '../ticket/ports.ts'
import { principalSchema } from '../ticket/principal.ts'
import { sliceNameSchema } from '../ticket/resource-schema.ts'
import { amountSchema, idSchema, timeSchema } from '../ticket/signed-object.ts'

/** A range of ports of the node's address and who has it. */
export const nodePortViewSchema = v.strictObject({
  protocol: v.picklist(PORT_PROTOCOLS),
  first: amountSchema,
  last: amountSchema,
  /**
   * `lease`: a slice. `node`: the node, by its configuration. `program`: a program of the node's machine that listens there.
   * `shared`: what vservers send from ports that they do not own leaves from here.
   */
  owner: v.picklist(['lease', 'node', 'program', 'shared']),
  /** Of a lease. */
  slice: v.exactOptional(sliceNameSchema),
  lease: v.exactOptional(idSchema),
  holder: v.exactOptional(principalSchema),
  vserver: v.exactOptional(v.string()),
  /** Of the lease; one that has `ended` keeps its ports because the node ended it before its term was over. */
  state: v.exactOptional(v.string()),
  /** UTC ms. */
  notAfter: v.exactOptional(timeSchema)
})
export type NodePortView = v.InferOutput<typeof nodePortViewSchema>

export const nodePortMethods = {
  /** Of a node: who has which port, sorted by protocol and number. Throws `NOT_FOUND`. */
  nodePorts: { params: emptySchema, result: v.strictObject({ ports: v.array(nodePortViewSchema) }) }
} as const

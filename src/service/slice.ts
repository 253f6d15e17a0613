/**
 * A slice as it is described, shown and reported on: the shapes that the service manager works with and that the
 * control socket, the SDK and `--json` share.
 */
import * as v from 'valibot'
import { asSlicenetError, isErrorCode, type ErrorCode } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { portWishSchema, querySchema } from '../protocol/agent-protocol.ts'
import { placementEntries } from '../protocol/broker-protocol.ts'
import { programSchema, uploadedFileSchema, vserverStateSchema } from '../protocol/node-protocol.ts'
import { principalSchema } from '../ticket/principal.ts'
import {
  portsSchema,
  resourcesSchema,
  rightsSchema,
  shapingSchema,
  sliceNameSchema
} from '../ticket/resource-schema.ts'
import { amountSchema, idSchema, timeSchema } from '../ticket/signed-object.ts'

/** Milliseconds that a lease is asked for, from now. */
export const termSchema = v.pipe(amountSchema, v.minValue(1000), v.maxValue(LIMITS.leaseMsMax))

/** A slice as its YAML file describes it, with units resolved and files read. */
export const sliceDescriptionSchema = v.strictObject({
  name: sliceNameSchema,
  count: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(LIMITS.sliceMembersMax)),
  /** Members with which the slice is worth having; equal to `count` when all are needed. */
  minimum: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(LIMITS.sliceMembersMax)),
  /** CEL over one advertisement; absent means every node. */
  query: v.exactOptional(querySchema),
  ...placementEntries,
  resources: resourcesSchema,
  ports: v.pipe(v.array(portWishSchema), v.maxLength(LIMITS.portRangesPerTicketMax)),
  rights: rightsSchema,
  /** What its members are to be held to, and their share. Default: what nodes and agents allow, and the usual share. */
  shaping: v.exactOptional(shapingSchema),
  leaseMs: termSchema,
  /** Whether its leases are renewed, for `leaseMs` each time, when a third of their term is left; default not. */
  renew: v.exactOptional(v.boolean()),
  /** A name that nodes know, or `sha256:<hex>`. */
  image: v.pipe(v.string(), v.minLength(1), v.maxLength(128)),
  program: v.exactOptional(programSchema),
  files: v.pipe(v.array(uploadedFileSchema), v.maxLength(LIMITS.uploadedFilesMax))
})
export type SliceDescription = v.InferOutput<typeof sliceDescriptionSchema>

export const memberSchema = v.strictObject({
  node: principalSchema,
  nodeName: v.string(),
  agent: principalSchema,
  agentName: v.string(),
  lease: idSchema,
  ticket: idSchema,
  vserver: v.string(),
  address: v.string(),
  ports: portsSchema,
  notBefore: timeSchema,
  notAfter: timeSchema,
  /** `unknown`: the node did not answer. */
  state: v.picklist([...vserverStateSchema.options, 'unknown', 'ended']),
  exitCode: v.exactOptional(amountSchema),
  restarts: v.exactOptional(amountSchema),
  frozen: v.exactOptional(v.literal(true)),
  /** The bytes that it may send in a day run out: until the day (UTC) is over it sends more slowly. */
  egressNarrowed: v.exactOptional(v.literal(true))
})
export type MemberView = v.InferOutput<typeof memberSchema>
/** What changes of a member while its lease lasts. */
export type MemberState = Pick<MemberView, 'state' | 'exitCode' | 'restarts' | 'frozen' | 'egressNarrowed'>

/** `acquiring` and `deleting` are resumed after a crash. `partial`: fewer members than wanted, not fewer than the minimum. */
export const sliceStateSchema = v.picklist(['acquiring', 'active', 'partial', 'deleting'])

export const sliceSchema = v.strictObject({
  name: sliceNameSchema,
  state: sliceStateSchema,
  count: amountSchema,
  createdAt: timeSchema,
  /** The earliest end among its leases. */
  notAfter: v.exactOptional(timeSchema),
  /** Whether its leases are renewed without being asked. */
  renew: v.boolean(),
  members: v.array(memberSchema)
})
export type SliceView = v.InferOutput<typeof sliceSchema>

/** Why something was not done to a member, and what its holder can do about it. */
export const reasonSchema = v.strictObject({
  code: v.custom<ErrorCode>(isErrorCode),
  message: v.string(),
  hint: v.exactOptional(v.string())
})
export type MemberReason = v.InferOutput<typeof reasonSchema>

/** What a member says of anything thrown. */
export function reasonOf(thrown: unknown): MemberReason {
  const { code, message, hint } = asSlicenetError(thrown)
  return { code, message, hint }
}

const renewedMemberSchema = v.strictObject({
  node: principalSchema,
  nodeName: v.string(),
  /** The lease in force, and its actual end in UTC ms. */
  lease: idSchema,
  notAfter: timeSchema,
  renewed: v.boolean(),
  /** Why it was not renewed. */
  reason: v.exactOptional(reasonSchema)
})
export type RenewedMember = v.InferOutput<typeof renewedMemberSchema>

/** What became of renewing a slice. */
export const renewalSchema = v.strictObject({
  slice: sliceNameSchema,
  /** The earliest end among its leases, renewed or not. */
  notAfter: timeSchema,
  members: v.pipe(v.array(renewedMemberSchema), v.minLength(1))
})
export type RenewalView = v.InferOutput<typeof renewalSchema>

/** One step of making or deleting a slice, as it ends; or a remark on the way. */
export const progressSchema = v.strictObject({
  step: v.picklist(['find', 'tickets', 'redeem', 'upload', 'launch', 'made', 'renew', 'delete']),
  message: v.string(),
  /** Whole milliseconds that the step took; absent on remarks. */
  ms: v.exactOptional(amountSchema)
})
export type Progress = v.InferOutput<typeof progressSchema>

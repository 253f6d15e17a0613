/**
 * What the CLI says to the local daemon over its Unix socket, and the shapes that `--json` prints. The socket's file
 * mode is the access check.
 */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { emptySchema } from '../protocol/agent-protocol.ts'
import {
  failedClauseSchema,
  plannedMemberSchema,
  planResultSchema,
  rejectionSchema,
  wantSchema
} from '../protocol/broker-protocol.ts'
import {
  CHUNK_BYTES_MAX,
  droppedSchema,
  execInputSchema,
  programSchema,
  signalSchema,
  terminalSizeSchema
} from '../protocol/node-protocol.ts'
import { sliceNewsSchema } from '../service/slice-event.ts'
import {
  progressSchema,
  reasonSchema,
  renewalSchema,
  sliceDescriptionSchema,
  sliceSchema,
  termSchema
} from '../service/slice.ts'
import { acceptsSchema } from '../ticket/accepts.ts'
import { coordinateSchema } from '../ticket/coordinate.ts'
import { principalSchema } from '../ticket/principal.ts'
import {
  portsSchema,
  resourcesSchema,
  rightsSchema,
  shapingSchema,
  sliceNameSchema
} from '../ticket/resource-schema.ts'
import { amountSchema, idSchema, timeSchema } from '../ticket/signed-object.ts'
import { byteString } from '../wire/codec.ts'
import { auditMethods } from './audit-protocol.ts'
import { flowMethods } from './flow-protocol.ts'
import { contactMethods } from './contact-protocol.ts'
import { joinMethods } from './join-protocol.ts'
import { nodePortMethods } from './node-port-protocol.ts'
import { proofViewSchema } from './proof-view.ts'
import { supplyMethods } from './supply-protocol.ts'

const chunk = byteString(0, CHUNK_BYTES_MAX)
/** Whatever somebody typed: what is wrong with it is said where it is read. */
const queryEntries = { query: v.exactOptional(v.string()) }
const streamSchema = v.picklist(['stdout', 'stderr'])

/** What can be done to members beside sending a signal; methods of the node protocol. */
export const MEMBER_ACTS = ['stop', 'freeze', 'thaw'] as const
const memberActSchema = v.union([v.picklist(MEMBER_ACTS), signalSchema])
export type MemberAct = v.InferOutput<typeof memberActSchema>

/** What a program that is attached to is told while it runs. */
export type SliceExecInput = v.InferOutput<typeof execInputSchema>

export const nodeViewSchema = v.strictObject({
  id: principalSchema,
  name: v.string(),
  attributes: v.record(v.string(), v.union([v.string(), v.number()])),
  capacity: resourcesSchema,
  free: resourcesSchema,
  images: v.record(v.string(), v.string()),
  agents: v.array(principalSchema),
  multiaddrs: v.array(v.string()),
  /** UTC ms at which the advertisement was made, and at which it dies. */
  advertisedAt: timeSchema,
  expiresAt: timeSchema,
  /** How it was heard: gossip, pull, dht, direct. */
  via: v.string(),
  /** UTC ms at which this peer heard it. */
  receivedAt: timeSchema,
  /** How old what it says is at least, by the node's clock or by this peer's, whichever says more. */
  ageMs: amountSchema,
  /** Of 1000, by what this peer's own tickets came to; 0 for proven fraud, absent while nothing is known. */
  reliability: v.exactOptional(amountSchema),
  rights: rightsSchema,
  /** Whom it serves; everybody when absent. */
  accepts: v.exactOptional(acceptsSchema),
  coordinate: v.exactOptional(coordinateSchema)
})
export type NodeView = v.InferOutput<typeof nodeViewSchema>

/** Of a node every condition of a query or a slice that it fails, none when it matches. */
export const explanationViewSchema = v.strictObject({
  node: principalSchema,
  name: v.string(),
  matches: v.boolean(),
  failed: v.array(failedClauseSchema),
  via: v.string(),
  ageMs: amountSchema
})
export type ExplanationView = v.InferOutput<typeof explanationViewSchema>

export type RejectionView = v.InferOutput<typeof rejectionSchema>

/** A member that a slice would have. */
export const plannedMemberViewSchema = v.strictObject({
  ...plannedMemberSchema.entries,
  /** Absent when its advertisement is not known here, or has none. */
  site: v.exactOptional(v.string()),
  agentName: v.exactOptional(v.string()),
  /** The longest round-trip time to another member, as their coordinates have it. */
  rttMicros: v.exactOptional(amountSchema)
})
export type PlannedMemberView = v.InferOutput<typeof plannedMemberViewSchema>

export const leaseViewSchema = v.strictObject({
  lease: idSchema,
  slice: sliceNameSchema,
  node: principalSchema,
  holder: principalSchema,
  ticket: idSchema,
  vserver: v.string(),
  address: v.string(),
  resources: resourcesSchema,
  ports: portsSchema,
  rights: v.exactOptional(rightsSchema),
  shaping: v.exactOptional(shapingSchema),
  notBefore: timeSchema,
  notAfter: timeSchema,
  state: v.string()
})
export type LeaseView = v.InferOutput<typeof leaseViewSchema>

export const ticketViewSchema = v.strictObject({
  ticket: idSchema,
  /** Whether this peer's agent issued it, or the peer holds it for a slice of its own. */
  role: v.picklist(['issued', 'held']),
  node: principalSchema,
  issuer: principalSchema,
  holder: principalSchema,
  /** Absent in a wholesale ticket. */
  slice: v.exactOptional(sliceNameSchema),
  notBefore: timeSchema,
  notAfter: timeSchema,
  /**
   * Issued: `out`, `settled` (nothing more can come of it) or `revoked`. Held: `wanted` (not redeemed yet), `leased`,
   * `renewing` or `dropping`.
   */
  state: v.picklist(['out', 'settled', 'revoked', 'wanted', 'leased', 'renewing', 'dropping'])
})
export type TicketView = v.InferOutput<typeof ticketViewSchema>

export const statusViewSchema = v.strictObject({
  version: v.string(),
  principal: principalSchema,
  name: v.string(),
  roles: v.array(v.picklist(['node', 'agent', 'broker', 'boot'])),
  multiaddrs: v.array(v.string()),
  pid: amountSchema,
  startedAt: timeSchema,
  /** Connected peers. */
  peers: amountSchema,
  /** Adverts known. */
  nodesKnown: amountSchema,
  agentsKnown: amountSchema,
  /** Of a node: agents that hold its delegation now. Of an agent: delegations held now. */
  delegations: amountSchema,
  /** Of a node: leases in force. */
  leases: amountSchema,
  /** Of a node: what is worse on its machine than its administrator may think, for people. */
  warnings: v.array(v.string())
})
export type StatusView = v.InferOutput<typeof statusViewSchema>

const memberEntries = { node: principalSchema, nodeName: v.string(), lease: idSchema }
const sliceParams = { slice: v.pipe(v.string(), v.minLength(1), v.maxLength(64)) }

export const controlProtocol = {
  id: '/slicenet/control/1.0.0',
  methods: {
    status: { params: emptySchema, result: statusViewSchema },
    /** Streams the nodes that match. Throws NO_MATCH with `details.nodes: [{node, name, failed: string[]}]`, at most 100, when a query matches nothing. */
    find: {
      params: v.strictObject(queryEntries),
      item: v.strictObject({ node: nodeViewSchema }),
      result: emptySchema
    },
    /**
     * Streams the nodes that match now, and goes on until the caller leaves: `match` when one begins to, `update` when
     * it says something else of itself, `expire` when it matches no more or is gone.
     */
    discover: {
      params: v.strictObject(queryEntries),
      item: v.strictObject({ event: v.picklist(['match', 'update', 'expire']), node: nodeViewSchema }),
      result: emptySchema
    },
    /**
     * Streams every node with what it fails: of a query, or of what a slice needs; then also what agents do not offer of
     * it. Throws `QUERY_INVALID`.
     */
    explain: {
      params: v.union([v.strictObject(queryEntries), v.strictObject({ want: wantSchema })]),
      item: explanationViewSchema,
      result: emptySchema
    },
    /**
     * Streams what a slice would be made of now, and the nodes that it would not; by the broker of another peer where one
     * is named, or any that is found. Nothing is held. Throws `QUERY_INVALID`.
     */
    plan: {
      params: v.strictObject({
        want: wantSchema,
        broker: v.exactOptional(v.union([v.literal('any'), principalSchema]))
      }),
      item: v.strictObject({
        member: v.exactOptional(plannedMemberViewSchema),
        rejection: v.exactOptional(rejectionSchema)
      }),
      result: planResultSchema
    },
    /**
     * A caller that sends `kept: false` at once is told with a step `made` when the slice is, and keeps it with `kept: true`;
     * if it goes away before, the slice is given up.
     */
    sliceCreate: {
      params: sliceDescriptionSchema,
      input: v.strictObject({ kept: v.boolean() }),
      item: progressSchema,
      result: sliceSchema
    },
    /** With `brief` no node is asked, and members that have not ended are `unknown`. */
    sliceList: {
      params: v.strictObject({ brief: v.exactOptional(v.boolean()) }),
      result: v.strictObject({ slices: v.array(sliceSchema) })
    },
    sliceShow: { params: v.strictObject(sliceParams), result: sliceSchema },
    /** Streams the slice as it is, then what happens to it, until its end. Throws `NOT_FOUND`. */
    sliceWatch: { params: v.strictObject(sliceParams), item: sliceNewsSchema, result: emptySchema },
    /** Runs on one member, named by a prefix of node name, node id, lease or vserver; the only or first one when absent. */
    sliceExec: {
      params: v.strictObject({
        ...sliceParams,
        member: v.exactOptional(v.string()),
        program: programSchema,
        terminal: v.exactOptional(terminalSizeSchema)
      }),
      input: execInputSchema,
      item: v.strictObject({ stream: streamSchema, bytes: chunk }),
      result: v.strictObject({ exitCode: amountSchema })
    },
    /**
     * Does something to the launched program, or to all that runs, in one or all members at once: `stop`, `freeze`, `thaw`,
     * or a signal to be sent. The result tells where it failed, and why.
     */
    sliceAct: {
      params: v.strictObject({
        ...sliceParams,
        member: v.exactOptional(v.string()),
        act: memberActSchema
      }),
      result: v.strictObject({
        members: v.array(v.strictObject({ ...memberEntries, reason: v.exactOptional(reasonSchema) }))
      })
    },
    /** What was dropped of what one or all members sent, packets by reason; `reason` where the node does not say. */
    sliceCounters: {
      params: v.strictObject({ ...sliceParams, member: v.exactOptional(v.string()) }),
      result: v.strictObject({
        members: v.array(
          v.strictObject({ ...memberEntries, dropped: droppedSchema, reason: v.exactOptional(reasonSchema) })
        )
      })
    },
    /** Streams the program's output of one or all members, in no order between members. */
    sliceLogs: {
      params: v.strictObject({ ...sliceParams, member: v.exactOptional(v.string()), follow: v.boolean() }),
      item: v.strictObject({
        node: principalSchema,
        nodeName: v.string(),
        stream: streamSchema,
        time: timeSchema,
        bytes: chunk
      }),
      result: emptySchema
    },
    /** Renews every lease of the slice; the result tells of those that were not, and why. */
    sliceRenew: {
      params: v.strictObject({ ...sliceParams, durationMs: v.exactOptional(termSchema) }),
      item: progressSchema,
      result: renewalSchema
    },
    /** Ends every lease of the slice; members whose node cannot be reached are kept and named in the result. */
    sliceDelete: {
      params: v.strictObject(sliceParams),
      item: progressSchema,
      result: v.strictObject({ deleted: amountSchema, unreachable: v.array(principalSchema) })
    },
    /** Of a node: the leases on it. Of a researcher's peer: the leases it holds. */
    leaseList: { params: emptySchema, result: v.strictObject({ leases: v.array(leaseViewSchema) }) },
    /** Of an agent: the tickets that it issued and that count. Of a researcher's peer: those that it holds. */
    ticketList: { params: emptySchema, result: v.strictObject({ tickets: v.array(ticketViewSchema) }) },
    /**
     * Of an agent: takes back a ticket that it issued, at the ticket's node. Of a node: takes no such ticket any more,
     * whoever issued it. Gives the id of the revocation.
     */
    ticketRevoke: {
      params: v.strictObject({ ticket: idSchema }),
      result: v.strictObject({ revocation: idSchema, by: v.picklist(['agent', 'node']) })
    },
    /** On a node: takes no ticket of this issuer any more whose number is below; see `Revocation`. */
    issuerRevoke: {
      params: v.strictObject({ issuer: principalSchema, beforeSeq: amountSchema }),
      result: v.strictObject({ revocation: idSchema })
    },
    /** The proofs of fraud that this peer knows. */
    proofList: { params: emptySchema, result: v.strictObject({ proofs: v.array(proofViewSchema) }) },
    /** One of them with its evidence, as it travels. Throws `NOT_FOUND`. */
    proofGet: {
      params: v.strictObject({ proof: idSchema }),
      result: v.strictObject({ bundle: byteString(1, LIMITS.proofBytesMax) })
    },
    ...joinMethods,
    ...contactMethods,
    ...supplyMethods,
    ...auditMethods,
    ...nodePortMethods,
    ...flowMethods,
    /**
     * Ends the daemon in order. Vservers run on, unless a node is given up for good: then every lease on it is ended
     * and what it has on the machine is taken away first.
     */
    shutdown: { params: v.strictObject({ giveUpNode: v.boolean() }), result: emptySchema }
  }
} as const

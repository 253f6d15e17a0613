/** What is said to node managers by service managers (paper §4.2.3). The caller is the principal of the channel. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { PROGRAM_SIGNALS } from '../base/program-signal.ts'
import { membershipsSchema } from '../ticket/advertisement.ts'
import { sshKeySchema, sshKeysSchema } from '../ticket/redeem.ts'
import { amountSchema, idSchema, timeSchema } from '../ticket/signed-object.ts'
import { byteString } from '../wire/codec.ts'
import { emptySchema } from './agent-protocol.ts'

const objectBytes = byteString(1, LIMITS.objectBytesMax)
const leaseParams = { lease: idSchema }
/** The node's delegation, and the tickets below it from the top. At a revocation there may be none. */
const chainParams = {
  delegation: objectBytes,
  tickets: v.pipe(v.array(objectBytes), v.maxLength(LIMITS.chainLinksMax))
}
const redeemParams = {
  redeem: objectBytes,
  ...chainParams,
  /** Who vouches for the holder, for nodes that ask. */
  memberships: v.exactOptional(membershipsSchema)
}
const leaseResult = v.strictObject({
  lease: v.exactOptional(objectBytes),
  refusal: v.exactOptional(objectBytes)
})
export const CHUNK_BYTES_MAX = 64 * 1024
const chunk = byteString(0, CHUNK_BYTES_MAX)
const streamSchema = v.picklist(['stdout', 'stderr'])
const argument = v.pipe(v.string(), v.maxLength(LIMITS.argumentBytesMax))

export const programSchema = v.strictObject({
  argv: v.pipe(v.array(argument), v.minLength(1), v.maxLength(LIMITS.argumentsMax)),
  env: v.record(v.pipe(v.string(), v.regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/)), argument),
  cwd: v.exactOptional(v.pipe(v.string(), v.startsWith('/'), v.maxLength(4096))),
  user: v.exactOptional(
    v.pipe(v.string(), v.regex(/^[a-z_0-9][a-z0-9_-]{0,31}(:[a-z_0-9][a-z0-9_-]{0,31})?$/))
  ),
  /** Of a launched one: whether it is started again when it has ended; default `never`. */
  restart: v.exactOptional(v.picklist(['never', 'on-failure', 'always']))
})

export const signalSchema = v.picklist(PROGRAM_SIGNALS)

const characters = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(LIMITS.terminalCharsMax))
export const terminalSizeSchema = v.strictObject({ columns: characters, rows: characters })

/** What a program at a terminal, or with a pipe for its standard input, is told while it runs. */
export const execInputSchema = v.strictObject({
  bytes: v.exactOptional(chunk),
  terminal: v.exactOptional(terminalSizeSchema)
})
export type ExecInput = v.InferOutput<typeof execInputSchema>

export const uploadedFileSchema = v.strictObject({
  path: v.pipe(
    v.string(),
    v.regex(/^(?!.*\/\.\.?(?:\/|$))\/.*[^/]$/, 'expected an absolute path without . or ..')
  ),
  content: byteString(0, LIMITS.uploadedFileBytesMax),
  mode: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0o777))
})

export const vserverStateSchema = v.picklist(['created', 'running', 'exited', 'failed'])

export const statusSchema = v.strictObject({
  state: vserverStateSchema,
  /** UTC ms. */
  notAfter: timeSchema,
  exitCode: v.exactOptional(amountSchema),
  /** How often the launched program was started again; absent when never. */
  restarts: v.exactOptional(amountSchema),
  frozen: v.exactOptional(v.literal(true)),
  /** The bytes that it may send in a day run out: until the day (UTC) is over it sends more slowly. */
  egressNarrowed: v.exactOptional(v.literal(true)),
  usage: v.exactOptional(
    v.strictObject({
      cpuMicros: amountSchema,
      memoryBytes: amountSchema,
      pids: amountSchema,
      diskBytes: amountSchema,
      egressBytes: amountSchema
    })
  )
})

const REASONS_MAX = 64
/** Packets that a node's checks dropped of what a virtual machine sent, by reason; reasons that nothing was for are absent. */
export const droppedSchema = v.pipe(
  v.record(v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,32}$/)), amountSchema),
  v.check((dropped) => Object.keys(dropped).length <= REASONS_MAX, `expected at most ${REASONS_MAX} reasons`)
)

/**
 * `open`: may still be redeemed. `redeemed`: it, or a ticket cut from it, has a lease. `lapsed`: was not redeemed in
 * time, or cancelled. `ended`: its leases are over and no more can come.
 */
export const ticketStateSchema = v.picklist(['open', 'redeemed', 'lapsed', 'ended'])
export type TicketState = v.InferOutput<typeof ticketStateSchema>

export const nodeProtocol = {
  id: '/slicenet/node/1.0.0',
  signsRefusals: true,
  methods: {
    /** Redeems a ticket. Gives the envelope of a lease or of a signed refusal. */
    newLease: { params: v.strictObject(redeemParams), result: leaseResult },
    /** Goes on with the lease that the demand names, to the end of the term of another ticket. Otherwise as `newLease`. */
    renewLease: { params: v.strictObject(redeemParams), result: leaseResult },
    /** Takes a revocation from anybody, with a chain that shows its signer's place in it. */
    revoke: { params: v.strictObject({ revocation: objectBytes, ...chainParams }), result: emptySchema },
    /**
     * The issuer of tickets asks what became of them, and with `cancel` that nothing more be redeemed of them; so may
     * their holder. A ticket counts as issued until the node itself says that it can no longer be redeemed.
     */
    settleTickets: {
      params: v.strictObject({
        tickets: v.pipe(v.array(objectBytes), v.minLength(1), v.maxLength(LIMITS.ticketsPerMessageMax)),
        cancel: v.boolean()
      }),
      result: v.strictObject({
        states: v.pipe(v.array(ticketStateSchema), v.maxLength(LIMITS.ticketsPerMessageMax))
      })
    },
    /**
     * Ends a lease and its virtual machine: the holder gives it up in a signed surrender. Succeeds for a lease of the
     * caller's that has ended already.
     */
    deleteLease: { params: v.strictObject({ ...leaseParams, surrender: objectBytes }), result: emptySchema },
    upload: {
      params: v.strictObject({
        ...leaseParams,
        files: v.pipe(v.array(uploadedFileSchema), v.minLength(1), v.maxLength(LIMITS.uploadedFilesMax))
      }),
      result: emptySchema
    },
    launch: { params: v.strictObject({ ...leaseParams, program: programSchema }), result: emptySchema },
    stop: { params: v.strictObject(leaseParams), result: emptySchema },
    /** Sends the launched program a signal. */
    signal: { params: v.strictObject({ ...leaseParams, signal: signalSchema }), result: emptySchema },
    /** Keeps all that runs in the virtual machine from the processor, until `thaw`. */
    freeze: { params: v.strictObject(leaseParams), result: emptySchema },
    thaw: { params: v.strictObject(leaseParams), result: emptySchema },
    /** With `usage: false` the node is spared the counting, which is most of the work. */
    status: {
      params: v.strictObject({ ...leaseParams, usage: v.exactOptional(v.boolean()) }),
      result: statusSchema
    },
    /** What was dropped of what the virtual machine sent, and why. */
    counters: { params: v.strictObject(leaseParams), result: v.strictObject({ dropped: droppedSchema }) },
    /**
     * Runs a program attached to the caller, at a terminal where its size is given; an input without bytes and size ends
     * its standard input.
     */
    exec: {
      params: v.strictObject({
        ...leaseParams,
        program: programSchema,
        terminal: v.exactOptional(terminalSizeSchema)
      }),
      input: execInputSchema,
      item: v.strictObject({ stream: streamSchema, bytes: chunk }),
      result: v.strictObject({ exitCode: amountSchema })
    },
    logs: {
      params: v.strictObject({ ...leaseParams, follow: v.boolean() }),
      item: v.strictObject({ stream: streamSchema, time: timeSchema, bytes: chunk }),
      result: emptySchema
    },
    addKey: { params: v.strictObject({ ...leaseParams, key: sshKeySchema }), result: emptySchema },
    delKey: { params: v.strictObject({ ...leaseParams, key: sshKeySchema }), result: emptySchema },
    getKeys: { params: v.strictObject(leaseParams), result: v.strictObject({ keys: sshKeysSchema }) }
  }
} as const

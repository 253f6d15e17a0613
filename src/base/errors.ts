/**
 * The one error type of slicenet and the list of its codes. A code is part of the interface: programs match on it,
 * `docs/errors.md` explains each, and a code once published keeps its meaning.
 */

/**
 * Every code with what a caller should conclude: how the CLI exits, whether trying the same again can help, and what to
 * do where the place that throws has nothing better to say.
 */
export const ERROR_CODES = {
  // What the caller said.
  USAGE: { exit: 2, retryable: false, hint: 'read the message and `slicenet COMMAND --help`' },
  CONFIG_INVALID: { exit: 2, retryable: false, hint: 'correct what the message names' },
  SLICE_FILE_INVALID: { exit: 2, retryable: false, hint: 'correct the file; `docs/cli.md` has its grammar' },
  QUERY_INVALID: {
    exit: 2,
    retryable: false,
    hint: 'correct the query; the message says where it goes wrong'
  },
  NAME_TAKEN: { exit: 1, retryable: false, hint: 'choose another name, or remove the one that is there' },
  NOT_FOUND: { exit: 1, retryable: false, hint: 'list what there is; check the spelling' },
  AMBIGUOUS_ID: { exit: 2, retryable: false, hint: 'give more letters of the name or id' },
  // The machine.
  NODE_TOO_OLD: {
    exit: 1,
    retryable: false,
    hint: 'install Node.js 22.20 or later, or install slicenet with its optional dependencies'
  },
  NOT_ROOT: { exit: 1, retryable: false, hint: 'run the same command as root' },
  HOST_PROGRAM_MISSING: { exit: 1, retryable: false, hint: 'run `slicenet doctor --install` as root' },
  HOST_PROGRAM_FAILED: { exit: 1, retryable: false, hint: 'read what it said; run `slicenet doctor`' },
  KERNEL_FEATURE_MISSING: {
    exit: 1,
    retryable: false,
    hint: "boot a kernel that has it, such as Debian's; run `slicenet doctor`"
  },
  KERNEL_REFUSED: { exit: 1, retryable: false, hint: 'read what the kernel said; run `slicenet doctor`' },
  PORT_IN_USE: { exit: 1, retryable: false, hint: 'stop that program, or configure another port' },
  // Keys, signatures, and what peers send.
  KEY_INVALID: { exit: 5, retryable: false, hint: 'give an ed25519 key or peer ID; a key file has mode 600' },
  SIGNATURE_INVALID: { exit: 5, retryable: false, hint: 'trust nothing in it; get it again from its issuer' },
  ENCODING_INVALID: {
    exit: 5,
    retryable: false,
    hint: 'get the file or message again; see that both sides run the same version'
  },
  TOO_LARGE: { exit: 1, retryable: false, hint: 'send less at once, or put large files in an image' },
  DENIED: {
    exit: 5,
    retryable: false,
    hint: 'use the account or key that may, or ask who runs the other side'
  },
  // Tickets and leases.
  CHAIN_INVALID: {
    exit: 5,
    retryable: false,
    hint: 'get fresh tickets; `slicenet ticket inspect` shows the chain'
  },
  TICKET_EXPIRED: { exit: 5, retryable: false, hint: 'get fresh tickets; `slice create` does so by itself' },
  TICKET_NOT_YET_VALID: { exit: 5, retryable: true, hint: 'try again when it has; compare the clocks' },
  TICKET_WRONG_NODE: { exit: 5, retryable: false, hint: 'redeem it at the node that it names' },
  TICKET_WRONG_HOLDER: { exit: 5, retryable: false, hint: 'get a ticket of your own' },
  TICKET_REDEEMED: { exit: 5, retryable: false, hint: 'get a fresh ticket' },
  TICKET_REVOKED: { exit: 5, retryable: false, hint: 'get a fresh ticket, or ask whoever revoked it' },
  ISSUER_CHEATED: {
    exit: 5,
    retryable: false,
    hint: 'get tickets of another agent; the proof is published, `slicenet ticket verify-proof` checks it'
  },
  MEMBERSHIP_FOREIGN: {
    exit: 5,
    retryable: false,
    hint: 'ask the organisation to vouch for the principal that `slicenet keys show` prints'
  },
  MEMBERSHIP_EXPIRED: { exit: 5, retryable: false, hint: 'ask the organisation to vouch anew' },
  INVITE_EXPIRED: { exit: 5, retryable: false, hint: 'ask whoever invited you for another invite' },
  NOT_YET_VALID: { exit: 5, retryable: true, hint: 'try again when it has begun; compare the clocks' },
  PROOF_INVALID: { exit: 5, retryable: false, hint: 'believe nothing of what it claims' },
  TICKET_EXCEEDS_PARENT: { exit: 5, retryable: false, hint: 'nobody will redeem it; tell whoever issued it' },
  OVERBOOKED: { exit: 1, retryable: true, hint: 'try again later, or on other nodes' },
  PORT_TAKEN: { exit: 1, retryable: true, hint: 'ask for another port, or for any' },
  LEASE_NOT_HELD: { exit: 5, retryable: false, hint: 'list your leases; check which key this peer has' },
  LEASE_NOT_EXTENDED: {
    exit: 5,
    retryable: false,
    hint: 'ask for a later end, such as `slicenet slice renew NAME --for 2h`'
  },
  LEASE_EXPIRED: { exit: 1, retryable: false, hint: 'make the slice again' },
  // Finding and making slices.
  NO_MATCH: { exit: 3, retryable: true, hint: 'ask for less, or wait for nodes to become free' },
  PARTIAL_SLICE: {
    exit: 4,
    retryable: true,
    hint: 'use it as it is, or delete it and make it again later'
  },
  QUOTA_EXCEEDED: {
    exit: 5,
    retryable: false,
    hint: 'delete what you no longer need, or ask for a larger quota'
  },
  // Vservers.
  IMAGE_MISSING: {
    exit: 1,
    retryable: false,
    hint: 'see `slicenet find` for the images of nodes; `slicenet image build`, `import` or `fetch` on your own'
  },
  IMAGE_INVALID: {
    exit: 1,
    retryable: false,
    hint: 'import the root of a file system, as a directory, a tar archive or an OCI image layout'
  },
  PROGRAM_NOT_FOUND: {
    exit: 1,
    retryable: false,
    hint: 'check `argv[0]` and the image, or upload the program with the slice'
  },
  IN_USE: { exit: 1, retryable: true, hint: 'free what is in use inside first, or ask for less of a cut' },
  VSERVER_FAILED: { exit: 1, retryable: true, hint: "try again; on the node, read the daemon's log" },
  // State on disk.
  STORE_LOCKED: { exit: 1, retryable: true, hint: 'stop it, or use a SLICENET_HOME of its own' },
  STORE_CORRUPT: {
    exit: 1,
    retryable: false,
    hint: 'follow the repair that the message names; keep a copy first'
  },
  STORE_FAILED: { exit: 1, retryable: true, hint: 'make room or see to the disk, then try again' },
  // Reaching others.
  DAEMON_UNREACHABLE: {
    exit: 6,
    retryable: true,
    hint: 'start it with `slicenet daemon`; check SLICENET_HOME'
  },
  DAEMON_RUNNING: {
    exit: 1,
    retryable: false,
    hint: 'stop it first, or give this one a SLICENET_HOME of its own'
  },
  PEER_UNREACHABLE: {
    exit: 6,
    retryable: true,
    hint: 'try again; check the network and whether it still runs'
  },
  PROTOCOL_ERROR: { exit: 1, retryable: false, hint: 'run the same version on both sides' },
  BUSY: { exit: 1, retryable: true, hint: 'wait a little and try again' },
  TIMEOUT: { exit: 7, retryable: true, hint: 'try again; give it longer with `--timeout`' },
  INTERRUPTED: { exit: 130, retryable: true, hint: 'run it again; what it had begun was ended in order' },
  INTERNAL: {
    exit: 1,
    retryable: false,
    hint: 'run it again with SLICENET_DEBUG=1 and report what it prints'
  }
} as const satisfies Record<string, { exit: number; retryable: boolean; hint: string }>

export type ErrorCode = keyof typeof ERROR_CODES

/** Codes of mishaps: they say what went wrong, and nothing about whether the request would be granted. */
const MISHAPS: ReadonlySet<ErrorCode> = new Set([
  'HOST_PROGRAM_FAILED',
  'KERNEL_REFUSED',
  'STORE_LOCKED',
  'STORE_CORRUPT',
  'STORE_FAILED',
  'DAEMON_UNREACHABLE',
  'DAEMON_RUNNING',
  'PEER_UNREACHABLE',
  'PROTOCOL_ERROR',
  'BUSY',
  'TIMEOUT',
  'INTERRUPTED',
  'INTERNAL'
])

/** Whether a code is an answer to the request, which whoever gives it signs and stands by. */
export function isDecision(code: ErrorCode): boolean {
  return !MISHAPS.has(code)
}

export interface ErrorInit {
  /** What the reader can do about it, one sentence. */
  readonly hint?: string
  /** JSON values only: they travel to peers and to `--json` output. */
  readonly details?: Readonly<Record<string, unknown>>
  readonly cause?: unknown
}

/** An error that a user or a peer may see. A programmer's mistake is a plain `TypeError` instead. */
export class SlicenetError extends Error {
  readonly code: ErrorCode
  readonly hint: string
  readonly details: Readonly<Record<string, unknown>> | undefined

  constructor(code: ErrorCode, message: string, init: ErrorInit = {}) {
    super(message, init.cause === undefined ? undefined : { cause: init.cause })
    this.name = 'SlicenetError'
    this.code = code
    this.hint = init.hint ?? ERROR_CODES[code].hint
    this.details = init.details
  }

  /** Whether the same request can succeed later without being changed. */
  get retryable(): boolean {
    return ERROR_CODES[this.code].retryable
  }

  toJSON(): ErrorJson {
    return {
      code: this.code,
      message: this.message,
      hint: this.hint,
      retryable: this.retryable,
      ...(this.details === undefined ? {} : { details: this.details })
    }
  }
}

/** What an error looks like on a socket and in `--json` output: never a stack. */
export interface ErrorJson {
  readonly code: ErrorCode
  readonly message: string
  readonly hint: string
  readonly retryable: boolean
  readonly details?: Readonly<Record<string, unknown>>
}

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(ERROR_CODES, value)
}

/**
 * Makes a `SlicenetError` of anything thrown: timeouts become `TIMEOUT`, what is unknown `INTERNAL` with its message
 * kept and its stack left behind in `cause`.
 */
export function asSlicenetError(thrown: unknown): SlicenetError {
  if (thrown instanceof SlicenetError) return thrown
  if (thrown instanceof Error && thrown.name === 'TimeoutError') {
    return new SlicenetError('TIMEOUT', thrown.message === '' ? 'timed out' : thrown.message, {
      cause: thrown
    })
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return new SlicenetError('INTERNAL', message, { cause: thrown })
}

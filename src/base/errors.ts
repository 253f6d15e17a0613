/**
 * The one error type of slicenet and the list of its codes. A code is part of the interface: programs match on it,
 * `docs/errors.md` explains each, and a code once published keeps its meaning.
 */

/** Every code with what a caller should conclude: how the CLI exits, and whether trying the same again can help. */
export const ERROR_CODES = {
  // What the caller said.
  USAGE: { exit: 2, retryable: false },
  CONFIG_INVALID: { exit: 2, retryable: false },
  SLICE_FILE_INVALID: { exit: 2, retryable: false },
  QUERY_INVALID: { exit: 2, retryable: false },
  NAME_TAKEN: { exit: 1, retryable: false },
  NOT_FOUND: { exit: 1, retryable: false },
  AMBIGUOUS_ID: { exit: 2, retryable: false },
  // The machine.
  NODE_TOO_OLD: { exit: 1, retryable: false },
  NOT_ROOT: { exit: 1, retryable: false },
  HOST_PROGRAM_MISSING: { exit: 1, retryable: false },
  HOST_PROGRAM_FAILED: { exit: 1, retryable: false },
  KERNEL_FEATURE_MISSING: { exit: 1, retryable: false },
  PORT_IN_USE: { exit: 1, retryable: false },
  // Keys, signatures, and what peers send.
  KEY_INVALID: { exit: 5, retryable: false },
  SIGNATURE_INVALID: { exit: 5, retryable: false },
  ENCODING_INVALID: { exit: 5, retryable: false },
  TOO_LARGE: { exit: 1, retryable: false },
  DENIED: { exit: 5, retryable: false },
  // Tickets and leases.
  CHAIN_INVALID: { exit: 5, retryable: false },
  TICKET_EXPIRED: { exit: 5, retryable: false },
  TICKET_NOT_YET_VALID: { exit: 5, retryable: true },
  TICKET_WRONG_NODE: { exit: 5, retryable: false },
  TICKET_WRONG_HOLDER: { exit: 5, retryable: false },
  TICKET_REDEEMED: { exit: 5, retryable: false },
  TICKET_EXCEEDS_PARENT: { exit: 5, retryable: false },
  OVERBOOKED: { exit: 1, retryable: true },
  PORT_TAKEN: { exit: 1, retryable: true },
  LEASE_NOT_HELD: { exit: 5, retryable: false },
  LEASE_EXPIRED: { exit: 1, retryable: false },
  // Finding and making slices.
  NO_MATCH: { exit: 3, retryable: true },
  PARTIAL_SLICE: { exit: 4, retryable: true },
  QUOTA_EXCEEDED: { exit: 5, retryable: false },
  // Vservers.
  IMAGE_MISSING: { exit: 1, retryable: false },
  IMAGE_INVALID: { exit: 1, retryable: false },
  PROGRAM_NOT_FOUND: { exit: 1, retryable: false },
  VSERVER_FAILED: { exit: 1, retryable: true },
  // State on disk.
  STORE_LOCKED: { exit: 1, retryable: true },
  STORE_CORRUPT: { exit: 1, retryable: false },
  STORE_FAILED: { exit: 1, retryable: true },
  // Reaching others.
  DAEMON_UNREACHABLE: { exit: 6, retryable: true },
  DAEMON_RUNNING: { exit: 1, retryable: false },
  PEER_UNREACHABLE: { exit: 1, retryable: true },
  PROTOCOL_ERROR: { exit: 1, retryable: false },
  BUSY: { exit: 1, retryable: true },
  TIMEOUT: { exit: 7, retryable: true },
  INTERRUPTED: { exit: 130, retryable: true },
  INTERNAL: { exit: 1, retryable: false }
} as const satisfies Record<string, { exit: number; retryable: boolean }>

export type ErrorCode = keyof typeof ERROR_CODES

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
  readonly hint: string | undefined
  readonly details: Readonly<Record<string, unknown>> | undefined

  constructor(code: ErrorCode, message: string, init: ErrorInit = {}) {
    super(message, init.cause === undefined ? undefined : { cause: init.cause })
    this.name = 'SlicenetError'
    this.code = code
    this.hint = init.hint
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
      ...(this.hint === undefined ? {} : { hint: this.hint }),
      retryable: this.retryable,
      ...(this.details === undefined ? {} : { details: this.details })
    }
  }
}

/** What an error looks like on a socket and in `--json` output: never a stack. */
export interface ErrorJson {
  readonly code: ErrorCode
  readonly message: string
  readonly hint?: string
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

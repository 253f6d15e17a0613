/**
 * Invites and memberships as text that people paste: a prefix that says what it is, and base58 of the envelope and a
 * checksum, so that what was mistyped or cut off is told apart from what was forged.
 */
import { hash } from 'node:crypto'
import { base58btc } from 'multiformats/bases/base58'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'

const KINDS = ['invite', 'membership'] as const
export type TextKind = (typeof KINDS)[number]

const CHECKSUM_BYTES = 4

export function formatObjectText(kind: TextKind, bytes: Uint8Array): string {
  const body = Buffer.concat([bytes, checksum(kind, bytes)])
  return `${prefixOf(kind)}${base58btc.baseEncode(body)}`
}

/** Whether a text claims to be one of these, whatever it is. */
export function isObjectText(text: string): boolean {
  return text.trimStart().startsWith('slicenet-')
}

/** As `parseObjectText`, of whichever kind. */
export function parseAnyObjectText(text: string): Uint8Array {
  const kind = KINDS.find((each) => text.trimStart().startsWith(prefixOf(each)))
  if (kind !== undefined) return parseObjectText(kind, text)
  throw new SlicenetError('ENCODING_INVALID', `expected ${KINDS.map(prefixOf).join('… or ')}…`)
}

/**
 * The bytes that a text stands for; white space within it counts for nothing. Throws `ENCODING_INVALID` for what is
 * mistyped, cut off or something else, and `TOO_LARGE`.
 */
export function parseObjectText(kind: TextKind, text: string): Uint8Array {
  if (text.length > LIMITS.objectTextCharsMax) {
    throw new SlicenetError('TOO_LARGE', `no ${kind} has more than ${LIMITS.objectTextCharsMax} letters`)
  }
  const packed = text.replaceAll(/\s/g, '')
  const prefix = prefixOf(kind)
  if (!packed.startsWith(prefix)) {
    throw new SlicenetError('ENCODING_INVALID', `this is no ${kind}: one begins with ${prefix}`, {
      hint: 'paste all of it, from the first letter to the last'
    })
  }
  const letters = packed.slice(prefix.length)
  const stranger = /[^1-9A-HJ-NP-Za-km-z]/.exec(letters)
  if (stranger !== null) {
    throw garbled(kind, `has a letter that is in none, after ${prefix.length + stranger.index} others`)
  }
  const body = base58btc.baseDecode(letters)
  const bytes = body.subarray(0, Math.max(0, body.length - CHECKSUM_BYTES))
  const sum = body.subarray(bytes.length)
  if (bytes.length === 0 || Buffer.compare(sum, checksum(kind, bytes)) !== 0) {
    throw garbled(kind, 'was mistyped or cut off')
  }
  return bytes
}

function prefixOf(kind: TextKind): string {
  return `slicenet-${kind}-`
}

function checksum(kind: TextKind, bytes: Uint8Array): Uint8Array {
  const what = Buffer.concat([Buffer.from(prefixOf(kind)), bytes])
  return hash('sha256', what, 'buffer').subarray(0, CHECKSUM_BYTES)
}

function garbled(kind: TextKind, what: string): SlicenetError {
  return new SlicenetError('ENCODING_INVALID', `the ${kind} ${what}`, {
    hint: 'copy it again, all of it'
  })
}

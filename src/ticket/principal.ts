/**
 * Principals: ed25519 keys, named by their libp2p peer ID (`12D3Koo…`). Whoever holds the key is the principal; an
 * organisation is a principal that vouches for others.
 */
import { publicKeyFromRaw } from '@libp2p/crypto/keys'
import { peerIdFromPublicKey } from '@libp2p/peer-id'
import * as v from 'valibot'
import type { Schema } from '../wire/codec.ts'

/** A peer ID in base58btc. */
export type Principal = string

/** Who signs: a principal and the 32-byte seed of its key. */
export interface SigningKey {
  readonly principal: Principal
  readonly seed: Uint8Array
}

export function principalOfPublicKey(publicKey: Uint8Array): Principal {
  return peerIdFromPublicKey(publicKeyFromRaw(publicKey)).toString()
}

/** Whether this is the principal of this 32-byte public key. */
export function isPrincipalOf(principal: Principal, publicKey: Uint8Array): boolean {
  const held = publicKeyOfPrincipal(principal)
  return held !== undefined && Buffer.compare(held, publicKey) === 0
}

const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
/** The value of each letter by its ASCII code; 58 for what is none. */
const DIGITS = Uint8Array.from({ length: 128 }, (_none, code) => {
  const digit = BASE58.indexOf(String.fromCharCode(code))
  return digit < 0 ? BASE58.length : digit
})
/** Their product with a limb stays within the integers of JavaScript's. */
const DIGITS_AT_ONCE = 5
const PRINCIPAL_CHARS = 52
/**
 * What the bytes of an ed25519 peer ID begin with: no hash (0x00) of 36 bytes that are a libp2p public key, which is
 * of type ed25519 (8, 1) and of 32 bytes (0x12, 0x20).
 */
const PREFIX = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20]
/** The number that the letters are, in limbs of 16 bits. */
const LIMBS = (PREFIX.length + 32) / 2

/**
 * The 32-byte public key that a peer ID holds; `undefined` for anything but an ed25519 peer ID. Reads the one form that
 * these have. libp2p reads all forms of all keys, and takes for the few names in a
 * ticket as long as its signature takes.
 */
export function publicKeyOfPrincipal(principal: Principal): Uint8Array | undefined {
  // The first letter is the first byte, which is 0.
  if (principal.length !== PRINCIPAL_CHARS || !principal.startsWith('1')) return undefined
  const limbs: number[] = []
  for (let at = 1; at < PRINCIPAL_CHARS;) {
    let [carry, base] = [0, 1]
    for (const to = Math.min(at + DIGITS_AT_ONCE, PRINCIPAL_CHARS); at < to; at++) {
      const digit = DIGITS[principal.charCodeAt(at)] ?? BASE58.length
      if (digit === BASE58.length) return undefined
      carry = carry * BASE58.length + digit
      base *= BASE58.length
    }
    for (let limb = 0; limb < limbs.length || carry > 0; limb++) {
      const product = (limbs[limb] ?? 0) * base + carry
      carry = Math.floor(product / 0x1_00_00)
      limbs[limb] = product - carry * 0x1_00_00
    }
  }
  // The prefix begins with a zero byte, which a lesser or greater number has not in this place.
  if (limbs.length !== LIMBS) return undefined
  const bytes = new Uint8Array(2 * LIMBS)
  for (let limb = 0; limb < LIMBS; limb++) {
    bytes[2 * limb] = limbs[LIMBS - 1 - limb]! >> 8
    bytes[2 * limb + 1] = limbs[LIMBS - 1 - limb]!
  }
  return PREFIX.every((byte, at) => bytes[at] === byte) ? bytes.subarray(PREFIX.length) : undefined
}

/** Ed25519 peer IDs have one length in base58btc; the cheap checks come before the decoding. */
export const principalSchema: Schema<Principal> = v.pipe(
  v.string(),
  v.regex(/^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/, 'expected an ed25519 peer ID'),
  v.check((text) => publicKeyOfPrincipal(text) !== undefined, 'expected an ed25519 peer ID')
)

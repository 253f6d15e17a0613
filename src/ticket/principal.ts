/**
 * Principals: ed25519 keys, named by their libp2p peer ID (`12D3Koo…`). Whoever holds the key is the principal; an
 * organisation is a principal that vouches for others.
 */
import { publicKeyFromRaw } from '@libp2p/crypto/keys'
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id'
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
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

/** The 32-byte public key that a peer ID holds. Throws `KEY_INVALID` for anything but an ed25519 peer ID. */
export function publicKeyOfPrincipal(principal: Principal): Uint8Array {
  try {
    const peerId = peerIdFromString(principal)
    if (peerId.type === 'Ed25519') return peerId.publicKey.raw
  } catch (error) {
    throw new SlicenetError('KEY_INVALID', `not a peer ID: ${principal.slice(0, 80)}`, { cause: error })
  }
  throw new SlicenetError('KEY_INVALID', `not an ed25519 peer ID: ${principal.slice(0, 80)}`)
}

function isPrincipal(text: string): boolean {
  try {
    publicKeyOfPrincipal(text)
    return true
  } catch {
    return false
  }
}

/** Ed25519 peer IDs have one length in base58btc; the cheap checks come before the decoding. */
export const principalSchema: Schema<Principal> = v.pipe(
  v.string(),
  v.regex(/^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/, 'expected an ed25519 peer ID'),
  v.check(isPrincipal, 'expected an ed25519 peer ID')
)

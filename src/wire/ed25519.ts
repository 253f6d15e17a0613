/**
 * Ed25519 twice, under one contract suite: node:crypto, with which peers sign and verify, and tweetnacl, the portable
 * reference that it is held against, some hundred times slower. They make the same bytes. Libraries disagree on malleable signatures and small-order points (tweetnacl
 * accepts S + L), so this module itself refuses those first and every peer gives the same answer.
 */
import { createPrivateKey, createPublicKey, sign, verify, type KeyObject } from 'node:crypto'
import nacl from 'tweetnacl'

export interface Ed25519 {
  readonly name: 'tweetnacl' | 'node:crypto'
  /** The 32-byte public key of a 32-byte seed. */
  publicKey(seed: Uint8Array): Uint8Array
  /** A 64-byte signature. */
  sign(seed: Uint8Array, message: Uint8Array): Uint8Array
  /** False for every malformed input; never throws. */
  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean
}

const SEED_BYTES = 32
const PUBLIC_KEY_BYTES = 32
const SIGNATURE_BYTES = 64

/** The order of the base point, and the field's prime (RFC 8032 §5.1), in little-endian bytes as all that travels. */
const GROUP_ORDER = fromHex('edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010')
const FIELD_PRIME = fromHex('edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f')

/** y coordinates of the eight points whose order divides 8; the sign of x, the highest bit, does not matter. */
const SMALL_ORDER_Y = [
  fromHex('0000000000000000000000000000000000000000000000000000000000000000'),
  fromHex('0100000000000000000000000000000000000000000000000000000000000000'),
  fromHex('ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'),
  fromHex('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a'),
  fromHex('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05')
]

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, 'hex'))
}

/** The sign of `a - b`, of which `a` is the 32 bytes at `from`, without the bits that `topMask` leaves out. */
function compare(a: Uint8Array, from: number, topMask: number, b: Uint8Array): number {
  for (let index = 31; index >= 0; index--) {
    const byte = (a[from + index] ?? 0) & (index === 31 ? topMask : 0xff)
    if (byte !== b[index]) return byte - (b[index] ?? 0)
  }
  return 0
}

/** Whether the 32 bytes at the beginning are canonical (y < p) and not of small order. */
function isSoundPoint(encoded: Uint8Array): boolean {
  return (
    compare(encoded, 0, 0x7f, FIELD_PRIME) < 0 &&
    SMALL_ORDER_Y.every((y) => compare(encoded, 0, 0x7f, y) !== 0)
  )
}

function isSound(publicKey: Uint8Array, signature: Uint8Array): boolean {
  return (
    publicKey.length === PUBLIC_KEY_BYTES &&
    signature.length === SIGNATURE_BYTES &&
    isSoundPoint(publicKey) &&
    isSoundPoint(signature) &&
    compare(signature, 32, 0xff, GROUP_ORDER) < 0
  )
}

function requireSeed(seed: Uint8Array): void {
  if (seed.length !== SEED_BYTES) throw new TypeError(`a seed has ${SEED_BYTES} bytes, not ${seed.length}`)
}

/**
 * What is made of a key is dear to make (half of a verification, two thirds of a signature) and the same few principals
 * come again and again.
 */
class KeyCache<T> {
  readonly #entriesMax = 1024
  readonly #entries = new Map<string, T>()

  get(id: string, make: () => T): T {
    const known = this.#entries.get(id)
    if (known !== undefined) return known
    const made = make()
    if (this.#entries.size >= this.#entriesMax) {
      const oldest = this.#entries.keys().next()
      if (oldest.done !== true) this.#entries.delete(oldest.value)
    }
    this.#entries.set(id, made)
    return made
  }
}

const keyPairs = new KeyCache<nacl.SignKeyPair>()

function keyPair(seed: Uint8Array): nacl.SignKeyPair {
  requireSeed(seed)
  return keyPairs.get(Buffer.from(seed).toString('hex'), () => nacl.sign.keyPair.fromSeed(seed))
}

export const portableEd25519: Ed25519 = {
  name: 'tweetnacl',
  // A copy: whoever gets it may not change what is kept.
  publicKey: (seed) => Uint8Array.from(keyPair(seed).publicKey),
  sign: (seed, message) => nacl.sign.detached(message, keyPair(seed).secretKey),
  verify: (publicKey, message, signature) =>
    isSound(publicKey, signature) && nacl.sign.detached.verify(message, signature, publicKey)
}

const publicKeys = new KeyCache<KeyObject>()
const privateKeys = new KeyCache<KeyObject>()
/** What precedes the seed in a PKCS #8 private key (RFC 8410). */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex')

function privateKeyObject(seed: Uint8Array): KeyObject {
  requireSeed(seed)
  return privateKeys.get(Buffer.from(seed).toString('hex'), () =>
    createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, seed]), format: 'der', type: 'pkcs8' })
  )
}

export const nativeEd25519: Ed25519 = {
  name: 'node:crypto',
  publicKey(seed) {
    const { x } = createPublicKey(privateKeyObject(seed)).export({ format: 'jwk' })
    return new Uint8Array(Buffer.from(x ?? '', 'base64url'))
  },
  sign: (seed, message) => new Uint8Array(sign(null, message, privateKeyObject(seed))),
  verify(publicKey, message, signature) {
    if (!isSound(publicKey, signature)) return false
    try {
      const x = Buffer.from(publicKey).toString('base64url')
      const key = publicKeys.get(x, () =>
        createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
      )
      return verify(null, message, key, signature)
    } catch {
      // A key that is no point of the curve.
      return false
    }
  }
}

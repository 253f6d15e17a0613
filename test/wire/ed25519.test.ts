import { createPublicKey, verify } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import nacl from 'tweetnacl'
import { nativeEd25519, portableEd25519 } from '../../src/wire/ed25519.ts'
import { numbersOf } from '../base/seeded-numbers.ts'

interface Vectors {
  readonly testGroups: readonly {
    readonly publicKey: { readonly pk: string }
    readonly tests: readonly { tcId: number; comment: string; msg: string; sig: string; result: string }[]
  }[]
}

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))
const vectors = JSON.parse(
  readFileSync(new URL('../vectors/wycheproof-ed25519.json', import.meta.url), 'utf8')
) as Vectors
const seed = new Uint8Array(32).map((_byte, index) => index)
const message = new TextEncoder().encode('a message')
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n

function withS(signature: Uint8Array, change: (s: bigint) => bigint): Uint8Array {
  const s = change(BigInt(`0x${Buffer.from(signature.subarray(32)).reverse().toString('hex')}`))
  const changed = Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse()
  return new Uint8Array([...signature.subarray(0, 32), ...changed])
}

for (const ed25519 of [portableEd25519, nativeEd25519]) {
  test(`${ed25519.name} agrees with every Wycheproof vector`, (t) => {
    let count = 0
    for (const group of vectors.testGroups) {
      for (const { tcId, comment, msg, sig, result } of group.tests) {
        const verified = ed25519.verify(hex(group.publicKey.pk), hex(msg), hex(sig))
        t.is(verified, result === 'valid', `${tcId}: ${comment}`)
        count++
      }
    }
    t.is(count, 151)
  })

  test(`${ed25519.name} verifies what it signed and nothing that differs in one bit`, (t) => {
    const publicKey = ed25519.publicKey(seed)
    const signature = ed25519.sign(seed, message)
    t.true(ed25519.verify(publicKey, message, signature))
    for (let bit = 0; bit < 512; bit += 7) {
      const flipped = signature.slice()
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      t.false(ed25519.verify(publicKey, message, flipped), `bit ${bit}`)
    }
  })

  test(`${ed25519.name} refuses S + L, small-order keys and keys not in their one encoding`, (t) => {
    const publicKey = ed25519.publicKey(seed)
    const signature = ed25519.sign(seed, message)
    t.false(
      ed25519.verify(
        publicKey,
        message,
        withS(signature, (s) => s + ORDER)
      )
    )
    const identity = hex(`01${'00'.repeat(31)}`)
    const forged = new Uint8Array([...identity, ...new Uint8Array(32)])
    t.false(ed25519.verify(identity, message, forged))
    const beyondPrime = hex(`ee${'ff'.repeat(30)}7f`)
    t.false(ed25519.verify(beyondPrime, message, forged))
  })

  test(`${ed25519.name} answers false to keys and signatures of a wrong length`, (t) => {
    t.false(ed25519.verify(new Uint8Array(31), message, new Uint8Array(64)))
    t.false(ed25519.verify(ed25519.publicKey(seed), message, new Uint8Array(63)))
  })
}

test('both make the same keys and signatures', (t) => {
  for (let round = 0; round < 20; round++) {
    const other = seed.map((byte) => byte ^ round)
    t.deepEqual(portableEd25519.publicKey(other), nativeEd25519.publicKey(other))
    t.deepEqual(portableEd25519.sign(other, message), nativeEd25519.sign(other, message))
  }
})

/**
 * tweetnacl verifies some hundred signatures a second, so that of 10,000 only those go through it that this module does
 * not refuse before; all of them do with `SLICENET_NIGHTLY`.
 */
const MUTATIONS = 10_000
const THROUGH_TWEETNACL = process.env.SLICENET_NIGHTLY === undefined ? 1000 : MUTATIONS
const MUTATION_SEED = Number(process.env.SLICENET_FUZZ_SEED ?? 1)

interface Trio {
  readonly publicKey: Uint8Array
  readonly message: Uint8Array
  readonly signature: Uint8Array
}

function flip(bytes: Uint8Array, bit: number): Uint8Array {
  const flipped = bytes.slice()
  flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
  return flipped
}

const SMALL_ORDER = [
  `01${'00'.repeat(31)}`,
  '00'.repeat(32),
  `ec${'ff'.repeat(30)}7f`,
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05'
].map(hex)

/** Refused by this module before either library sees them. */
const unsound: readonly ((good: Trio, number: (max: number) => number) => Trio)[] = [
  (good, number) => ({
    ...good,
    signature: withS(good.signature, (s) => s + ORDER * BigInt(1 + number(14)))
  }),
  (good, number) => ({ ...good, publicKey: SMALL_ORDER[number(5)] ?? good.publicKey }),
  (good, number) => ({
    ...good,
    signature: new Uint8Array([...(SMALL_ORDER[number(5)] ?? []), ...good.signature.subarray(32)])
  }),
  // y between the prime and 2^255.
  (good, number) => ({
    ...good,
    publicKey: Uint8Array.of(0xed + number(19), ...new Uint8Array(30).fill(0xff), 0x7f)
  }),
  (good, number) => ({ ...good, signature: good.signature.subarray(0, number(64)) }),
  (good, number) => ({ ...good, publicKey: good.publicKey.subarray(0, number(32)) })
]

/** Left to the libraries. */
const sound: readonly ((good: Trio, number: (max: number) => number) => Trio)[] = [
  (good) => good,
  (good, number) => ({ ...good, message: flip(good.message, number(good.message.length * 8)) }),
  (good, number) => ({ ...good, message: good.message.subarray(1 + number(good.message.length)) }),
  // Half of these are no points of the curve.
  (good, number) => ({ ...good, publicKey: flip(good.publicKey, number(255)) }),
  // The sign of x.
  (good) => ({ ...good, publicKey: flip(good.publicKey, 255) }),
  (good, number) => ({ ...good, signature: flip(good.signature, number(256)) }),
  (good, number) => ({ ...good, signature: flip(good.signature, 256 + number(248)) }),
  (good, number) => ({
    ...good,
    signature: withS(good.signature, (s) => (s * 2n + BigInt(number(9))) % ORDER)
  })
]

function goodTrios(number: (max: number) => number): Trio[] {
  return Array.from({ length: 8 }, () => {
    const own = new Uint8Array(32).map(() => number(256))
    const message = new Uint8Array(1 + number(200)).map(() => number(256))
    const publicKey = nativeEd25519.publicKey(own)
    return { publicKey, message, signature: nativeEd25519.sign(own, message) }
  })
}

test('both give the same answer to 10,000 changed keys, messages and signatures', (t) => {
  t.timeout(600_000)
  const number = numbersOf(MUTATION_SEED)
  const good = goodTrios(number)
  let accepted = 0
  for (let round = 0; round < MUTATIONS; round++) {
    const changes = round < THROUGH_TWEETNACL ? sound : unsound
    const trio = good[number(good.length)]
    const change = changes[round % changes.length]
    if (trio === undefined || change === undefined) throw new TypeError('there is one of each')
    const { publicKey, message, signature } = change(trio, number)
    const portable = portableEd25519.verify(publicKey, message, signature)
    const native = nativeEd25519.verify(publicKey, message, signature)
    if (portable !== native || (portable && change !== sound[0])) {
      t.fail(`seed ${MUTATION_SEED}, round ${round}: tweetnacl ${portable}, node:crypto ${native}`)
      return
    }
    if (portable) accepted += 1
  }
  t.is(accepted, Math.ceil(THROUGH_TWEETNACL / sound.length))
})

test('without the refusals of this module the two would differ', (t) => {
  const number = numbersOf(MUTATION_SEED)
  const [trio] = goodTrios(number)
  if (trio === undefined) throw new TypeError('there is one')
  const changed = withS(trio.signature, (s) => s + ORDER)
  t.true(nacl.sign.detached.verify(trio.message, changed, trio.publicKey))
  const key = createPublicKey({
    key: { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(trio.publicKey).toString('base64url') },
    format: 'jwk'
  })
  t.false(verify(null, trio.message, key, changed))
})

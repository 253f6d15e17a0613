import { readFileSync } from 'node:fs'
import test from 'ava'
import { nativeEd25519, portableEd25519 } from '../../src/wire/ed25519.ts'

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

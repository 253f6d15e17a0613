import { publicKeyFromRaw } from '@libp2p/crypto/keys'
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id'
import test from 'ava'
import { isPrincipalOf, principalOfPublicKey, publicKeyOfPrincipal } from '../../src/ticket/principal.ts'
import { numbersOf, type Numbers } from '../base/seeded-numbers.ts'

const LETTERS = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'

function keyOf(below: Numbers): Uint8Array {
  // Zeros and ones at either end, where numbers lose or gain a digit.
  const [from, to] = [below(33), below(33)]
  const edge = below(2) * 255
  return Uint8Array.from({ length: 32 }, (_none, at) => (at < from || at > to ? edge : below(256)))
}

/** The key that libp2p reads, if it is of a peer ID in the form that libp2p writes. */
function read(text: string): Uint8Array | undefined {
  try {
    const peerId = peerIdFromString(text)
    return peerId.type === 'Ed25519' && peerId.toString() === text ? peerId.publicKey.raw : undefined
  } catch {
    return undefined
  }
}

test('keys and principals are turned into one another as libp2p does', (t) => {
  for (let seed = 1; seed <= 2000; seed++) {
    const key = keyOf(numbersOf(seed))
    const principal = peerIdFromPublicKey(publicKeyFromRaw(key)).toString()
    if (principalOfPublicKey(key) !== principal) t.fail(principal)
    t.deepEqual(publicKeyOfPrincipal(principal), key)
    t.true(isPrincipalOf(principal, key))
  }
})

test('a principal with letters changed, left out or added is read or refused as by libp2p', (t) => {
  let good = 0
  for (let seed = 1; seed <= 5000; seed++) {
    const below = numbersOf(seed)
    const key = keyOf(below)
    const letters = principalOfPublicKey(key).split('')
    const added = below(10) === 0 ? '0' : LETTERS.charAt(below(LETTERS.length))
    letters.splice(below(letters.length), below(8) > 0 ? 1 : 0, ...(below(8) > 0 ? [added] : []))
    const changed = letters.join('')
    const expected = read(changed)
    if (expected === undefined) {
      t.is(publicKeyOfPrincipal(changed), undefined, changed)
      t.false(isPrincipalOf(changed, key))
    } else {
      good++
      t.deepEqual(publicKeyOfPrincipal(changed), expected)
      t.is(isPrincipalOf(changed, key), Buffer.compare(expected, key) === 0)
    }
  }
  t.true(good > 1000, `${good}`)
})

test('a peer ID of another kind of key is no principal', (t) => {
  for (const text of [
    '',
    '1',
    'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N',
    '2'.repeat(52),
    '1'.repeat(52),
    'z'.repeat(52),
    `1${'z'.repeat(51)}`
  ]) {
    t.is(publicKeyOfPrincipal(text), undefined)
  }
})

import * as dagCbor from '@ipld/dag-cbor'
import test from 'ava'
import fc from 'fast-check'
import { decodeCbor, encodeCbor } from '../../src/wire/cbor.ts'
import { numbersOf, type Numbers } from '../base/seeded-numbers.ts'

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))

test('what is encoded decodes to the same value and encodes to the same bytes', (t) => {
  const value = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      fc.integer(),
      fc.string(),
      fc.boolean(),
      fc.constant(null),
      fc.uint8Array(),
      fc.array(tie('value'), { maxLength: 5 }),
      fc.dictionary(fc.string(), tie('value'), { maxKeys: 5, noNullPrototype: true })
    )
  })).value
  fc.assert(
    fc.property(value, (input) => {
      const bytes = encodeCbor(input)
      const decoded = decodeCbor(bytes)
      t.deepEqual(decoded, input)
      t.deepEqual(encodeCbor(decoded), bytes)
    }),
    { numRuns: 500 }
  )
})

const broken: Readonly<Record<string, string>> = {
  'an integer in more bytes than it needs': '1801',
  'map keys out of order': 'a2616201616101',
  'a map key twice': 'a2616101616102',
  'a float': 'fb3ff0000000000000',
  'a half float': 'f93c00',
  undefined: 'f7',
  'an array of indefinite length': '9f01ff',
  'bytes after the end': '0000',
  'a string cut off': '6361',
  'an array longer than the message': '9affffffff',
  'a string of 2^60 bytes': '7b1000000000000000',
  'a tag': 'd82a4100',
  'text that is not UTF-8': '61ff',
  'nothing at all': '',
  'an integer beyond 2^53': '1b0020000000000001'
}
for (const [name, bytes] of Object.entries(broken)) {
  test(`${name} is refused`, (t) => {
    t.throws(() => decodeCbor(hex(bytes)), { code: 'ENCODING_INVALID' })
  })
}

test('nesting beyond the limit is refused before it is built', (t) => {
  const deep = new Uint8Array(10_000).fill(0x81)
  t.throws(() => decodeCbor(deep), { code: 'ENCODING_INVALID', message: /nested deeper/ })
})

test('more bytes than the limit are refused', (t) => {
  t.throws(() => decodeCbor(encodeCbor(new Uint8Array(20_000))), { code: 'TOO_LARGE' })
})

test('any bytes are either refused with a code or are their own canonical encoding', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      let value: unknown
      try {
        value = decodeCbor(bytes)
      } catch (error) {
        t.is((error as { code?: string }).code, 'ENCODING_INVALID')
        return
      }
      t.deepEqual(encodeCbor(value), bytes)
    }),
    { numRuns: 5000 }
  )
})

/** Items that may be right or wrong in one place: a head whose number has any width, keys in any order, any letter. */
function itemOf(below: Numbers, depth: number): number[] {
  const kind = below(depth > 2 ? 4 : 6)
  const length = below(4)
  const head = (major: number, number: number): number[] => {
    if (below(60) === 0) return [(major << 5) | 24, number]
    return number < 24 ? [(major << 5) | number] : [(major << 5) | 24, number]
  }
  if (kind === 0) return head(below(2), below(40))
  if (kind === 1) return [...head(2, length), ...Array.from({ length }, () => below(256))]
  const letters = Array.from({ length }, () => (below(60) === 0 ? below(256) : 97 + below(3)))
  if (kind === 2) return [...head(3, length), ...letters]
  if (kind === 3) return [below(20) === 0 ? below(256) : 0xf4 + below(3)]
  if (kind === 4)
    return [...head(4, length), ...Array.from({ length }, () => itemOf(below, depth + 1)).flat()]
  const keys = Array.from({ length }, () => [0x61 + below(2), 97 + below(3), 97 + below(3)])
  const entries = keys.map(([first = 0, ...rest]) => [first, ...rest.slice(0, first - 0x60)])
  entries.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)) * (below(20) === 0 ? -1 : 1))
  return [...head(5, length), ...entries.flatMap((key) => [...key, ...itemOf(below, depth + 1)])]
}

/** What the encoder's library reads, when that is what it would write. */
function reread(bytes: Uint8Array): unknown {
  try {
    const value: unknown = dagCbor.decode(bytes)
    return Buffer.compare(encodeCbor(value), bytes) === 0 ? value : undefined
  } catch {
    return undefined
  }
}

test('20,000 items are read or refused as by decoding with the library and encoding again', (t) => {
  const counts = { read: 0, refused: 0 }
  for (let seed = 1; seed <= 20_000; seed++) {
    const bytes = Uint8Array.from(itemOf(numbersOf(seed), 0))
    const expected = reread(bytes)
    let actual: unknown
    try {
      actual = decodeCbor(bytes)
    } catch (error) {
      if ((error as { code?: string }).code !== 'ENCODING_INVALID') throw error
    }
    if (actual !== expected) t.deepEqual(actual, expected, Buffer.from(bytes).toString('hex'))
    counts[expected === undefined ? 'refused' : 'read']++
  }
  t.true(Math.min(counts.read, counts.refused) > 1000, JSON.stringify(counts))
})

test('keys that were read before are told from others that are nearly the same', (t) => {
  for (const key of ['abcd', 'abed', 'ab', 'abcd', 'a\u00e9bd', 'abcde', '__proto__', 'abed']) {
    const bytes = encodeCbor({ [key]: 1 })
    t.deepEqual(Object.entries(decodeCbor(bytes) as object), [[key, 1]])
    // Cut off within the key.
    t.throws(() => decodeCbor(bytes.subarray(0, 4)), { code: 'ENCODING_INVALID' })
  }
})

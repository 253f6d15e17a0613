import test from 'ava'
import fc from 'fast-check'
import { decodeCbor, encodeCbor } from '../../src/wire/cbor.ts'

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

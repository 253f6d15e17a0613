import test from 'ava'
import * as v from 'valibot'
import { encodeCbor } from '../../src/wire/cbor.ts'
import { cborCodec } from '../../src/wire/codec.ts'
import { readMessages } from '../../src/wire/duplex.ts'
import { duplexPair } from './duplex-pair.ts'

const settings = v.strictObject({ settings: v.record(v.string(), v.number()) })

test('what a schema would drop or take for something else is refused', (t) => {
  const codec = cborCodec(settings)
  t.deepEqual(codec.decode(encodeCbor({ settings: { a: 1 } })), { settings: { a: 1 } })
  for (const odd of [{ constructor: 1 }, [], new Uint8Array(0)]) {
    // The schema alone sees nothing wrong.
    t.true(v.is(settings, { settings: odd }))
    t.throws(() => codec.decode(encodeCbor({ settings: odd })), { code: 'ENCODING_INVALID' })
  }
})

test('a stream that ends in the middle of a message is malformed', async (t) => {
  const [here, there] = duplexPair()
  await here.write(Uint8Array.of(9, 0x83, 1))
  await here.closeWrite()
  await t.throwsAsync(Array.fromAsync(readMessages(there)), { code: 'ENCODING_INVALID' })
})

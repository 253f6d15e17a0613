import test from 'ava'
import type { SlicenetError } from '../../src/base/errors.ts'
import { inspectBytes } from '../../src/daemon/inspection.ts'
import { encodeCbor } from '../../src/wire/cbor.ts'
import { decodeEnvelope, seal } from '../../src/wire/envelope.ts'
import { nativeEd25519 } from '../../src/wire/ed25519.ts'
import { agentKey, delegation, nodeKey, NOW, ticketOf } from './signed-objects.ts'

const ticket = ticketOf({ cpuMillis: 200 })

function text(bytes: Uint8Array, encoding: BufferEncoding): Uint8Array {
  return Buffer.from(`${Buffer.from(bytes).toString(encoding)}\n`)
}

/** As `base64` prints it. */
function wrapped(bytes: Uint8Array): Uint8Array {
  return Buffer.from(
    (
      Buffer.from(bytes)
        .toString('base64')
        .match(/.{1,76}/g) ?? []
    ).join('\n')
  )
}

test('an object is shown with id, signer and fields, however it is written down', (t) => {
  const forms = [
    ticket.bytes,
    text(ticket.bytes, 'hex'),
    text(ticket.bytes, 'base64'),
    text(ticket.bytes, 'base64url'),
    wrapped(ticket.bytes),
    encodeCbor([ticket.bytes])
  ]
  for (const form of forms) {
    const { objects, error } = inspectBytes(form, NOW)
    t.is(error, undefined)
    t.is(objects.length, 1)
    t.like(objects[0], { type: 'ticket', id: ticket.id, signer: agentKey.principal, signature: 'valid' })
    t.is(objects[0]?.body['slice'], 'mesh')
  }
})

test('a proof with its evidence is told to be one, and where it is checked', (t) => {
  const bundle = encodeCbor({ proof: ticket.bytes, evidence: [ticket.bytes] })
  for (const form of [bundle, text(bundle, 'hex'), wrapped(bundle)]) {
    const error = t.throws(() => inspectBytes(form, NOW), {
      code: 'ENCODING_INVALID',
      message: /proof of fraud/
    })
    t.regex((error as SlicenetError).hint ?? '', /verify-proof/)
  }
})

test('a chain is shown link by link, as a list or as lines', (t) => {
  const lines = [delegation, ticket].map(({ bytes }) => Buffer.from(bytes).toString('base64')).join('\n')
  for (const form of [encodeCbor([delegation.bytes, ticket.bytes]), Buffer.from(lines)]) {
    const { objects, chain, error } = inspectBytes(form, NOW)
    t.deepEqual(
      objects.map(({ type }) => type),
      ['delegation', 'ticket']
    )
    t.deepEqual(chain, { valid: true })
    t.is(error, undefined)
  }
})

test('a chain that gives more than it had is an error, and one that is over is none', (t) => {
  const widened = inspectBytes(encodeCbor([delegation.bytes, ticketOf({ cpuMillis: 2000 }).bytes]), NOW)
  t.is(widened.error?.code, 'TICKET_EXCEEDS_PARENT')
  const over = inspectBytes(encodeCbor([delegation.bytes, ticket.bytes]), NOW + 86_400_000)
  t.is(over.error, undefined)
  t.is(over.chain?.code, 'TICKET_EXPIRED')
})

test('a changed byte anywhere in the payload or signature shows', (t) => {
  const { payload, signature, signer } = decodeEnvelope(ticket.bytes)
  const flipped = Uint8Array.from(signature, (byte, at) => (at === 5 ? byte ^ 1 : byte))
  const { objects, error } = inspectBytes(encodeCbor({ payload, signer, signature: flipped }), NOW)
  t.is(objects[0]?.signature, 'invalid')
  t.is(error?.code, 'SIGNATURE_INVALID')
})

test('an object signed by another than the issuer it names is no good, valid signature or not', (t) => {
  const { payload } = decodeEnvelope(ticket.bytes)
  const { objects, error } = inspectBytes(seal('ticket', payload, nodeKey.seed, nativeEd25519), NOW)
  t.is(objects[0]?.signature, 'valid')
  t.is(objects[0]?.fault?.code, 'SIGNATURE_INVALID')
  t.is(error?.code, 'SIGNATURE_INVALID')
})

test('an object of a type from the future is shown, and its signature checked', (t) => {
  const payload = encodeCbor({ type: 'novelty', version: 1, body: { issuer: 'x', answer: 42 } })
  const { objects, error } = inspectBytes(seal('novelty', payload, nodeKey.seed, nativeEd25519), NOW)
  t.is(error, undefined)
  t.like(objects[0], { type: 'novelty', signature: 'valid', body: { answer: 42 } })
})

test('what holds no signed object is refused', (t) => {
  const garbage = ['', 'hello world', '{"a":1}', '00', 'zzzz', '\u0000\u0001']
  for (const bytes of garbage) {
    t.throws(() => inspectBytes(Buffer.from(bytes), NOW), { code: 'ENCODING_INVALID' }, JSON.stringify(bytes))
  }
  t.throws(() => inspectBytes(encodeCbor([]), NOW), { code: 'ENCODING_INVALID' })
  t.throws(() => inspectBytes(encodeCbor(Array.from({ length: 20 }, () => ticket.bytes)), NOW), {
    code: 'TOO_LARGE'
  })
})

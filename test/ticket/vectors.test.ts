import { readFileSync } from 'node:fs'
import test from 'ava'
import nacl from 'tweetnacl'
import { SlicenetError, type ErrorCode } from '../../src/base/errors.ts'
import { OBJECT_TYPES } from '../../src/ticket/any-object.ts'
import { chainFault } from '../../src/ticket/chain.ts'
import { delegationObject } from '../../src/ticket/delegation.ts'
import { openBundle } from '../../src/ticket/fraud-bundle.ts'
import type { ObjectType, SignedFields } from '../../src/ticket/signed-object.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
import { encodeCbor } from '../../src/wire/cbor.ts'
import { nativeEd25519, portableEd25519 } from '../../src/wire/ed25519.ts'
import { decodeEnvelope, payloadId, verifyEnvelope, type Envelope } from '../../src/wire/envelope.ts'

interface Case {
  readonly name: string
  readonly envelope: string
}
interface ValidCase extends Case {
  readonly valid: true
  readonly issuer: string
  readonly id: string
  readonly body: unknown
}
interface BrokenCase extends Case {
  readonly valid: false
  readonly code: ErrorCode
}
type ObjectCase = ValidCase | BrokenCase
interface ChainCase {
  readonly name: string
  readonly valid: boolean
  readonly node: string
  readonly holder: string
  readonly now: number
  readonly delegation: string
  readonly tickets: readonly string[]
  readonly code?: ErrorCode
  readonly evidence?: readonly string[]
}

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))

function casesOf(name: string): unknown {
  const text = readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), 'utf8')
  return (JSON.parse(text) as { cases: unknown }).cases
}

/** A body as the vectors write it. */
function bodyJson(body: unknown): unknown {
  return JSON.parse(
    JSON.stringify(body, (_key, value: unknown) =>
      value instanceof Uint8Array ? { hex: Buffer.from(value).toString('hex') } : value
    )
  )
}

for (const object of Object.values(OBJECT_TYPES) as ObjectType<SignedFields>[]) {
  const cases = casesOf(object.type) as readonly ObjectCase[]
  for (const one of cases) {
    test(`${object.type}, ${one.name}: ${one.valid ? 'opens' : `is refused as ${one.code}`}`, (t) => {
      const bytes = hex(one.envelope)
      for (const ed25519 of [portableEd25519, nativeEd25519]) {
        if (!one.valid) {
          t.throws(() => object.open(bytes, ed25519), { instanceOf: SlicenetError, code: one.code })
          continue
        }
        const { id, body } = object.open(bytes, ed25519)
        t.is(id, one.id)
        t.is(body.issuer, one.issuer)
        t.deepEqual(bodyJson(body), one.body)
        const { payload } = decodeEnvelope(bytes)
        const again = new Uint8Array(encodeCbor({ type: object.type, version: 1, body }))
        t.deepEqual(again, payload)
        t.is(payloadId(payload), one.id)
      }
    })
  }

  test(`the malformed payloads of ${object.type} are well signed, so that only the decoder refuses them`, (t) => {
    let count = 0
    for (const one of cases) {
      if (one.valid || one.code !== 'ENCODING_INVALID') continue
      let envelope: Envelope
      try {
        envelope = decodeEnvelope(hex(one.envelope))
      } catch {
        // The envelope itself is what is broken.
        continue
      }
      t.notThrows(() => verifyEnvelope(object.type, envelope, nativeEd25519))
      count += 1
    }
    t.is(count, 16)
  })

  test(`tweetnacl alone takes the S + L of ${object.type}`, (t) => {
    const one = cases.find(({ name }) => name === 'S + L')
    const { payload, signature, signer } = decodeEnvelope(hex(one?.envelope ?? ''))
    const signed = Buffer.concat([Buffer.from(`slicenet/v1/${object.type}\0`), payload])
    t.true(nacl.sign.detached.verify(signed, signature, signer))
  })
}

for (const one of casesOf('chain') as readonly ChainCase[]) {
  test(`chain, ${one.name}: ${one.valid ? 'holds' : `is refused as ${one.code}`}`, (t) => {
    for (const ed25519 of [portableEd25519, nativeEd25519]) {
      const chain = {
        delegation: delegationObject.open(hex(one.delegation), ed25519),
        tickets: one.tickets.map((text) => ticketObject.open(hex(text), ed25519))
      }
      const found = chainFault(chain, one)
      t.is(
        found?.code,
        one.code as typeof found extends undefined ? never : NonNullable<typeof found>['code']
      )
      t.deepEqual(found?.evidence ?? [], one.evidence ?? [])
    }
  })
}

interface FraudCase {
  readonly name: string
  readonly valid: boolean
  readonly kind: string
  readonly accused: string
  readonly id: string
  readonly bundle: string
  readonly code?: ErrorCode
}

for (const one of casesOf('fraud') as readonly FraudCase[]) {
  test(`${one.kind}, ${one.name}: ${one.valid ? 'is proven' : 'proves nothing'}`, (t) => {
    const bytes = hex(one.bundle)
    if (!one.valid) {
      t.throws(() => openBundle(bytes), { instanceOf: SlicenetError, code: one.code ?? 'none' })
      return
    }
    const { proof, finding } = openBundle(bytes)
    t.is(proof.id, one.id)
    t.is(finding.kind, one.kind as typeof finding.kind)
    t.is(finding.accused, one.accused)
  })
}

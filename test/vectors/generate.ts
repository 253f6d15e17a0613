/**
 * Makes the vectors of the signed objects, with keys that live for one run and are written nowhere. What it wrote is
 * committed and stays: run it again only when the format itself changes, for every id and signature will be new.
 * Run: `node test/vectors/generate.ts NAME...`, a file each.
 */
import { writeFileSync } from 'node:fs'
import { base58btc } from 'multiformats/bases/base58'
import { SlicenetError, type ErrorCode } from '../../src/base/errors.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import type { ObjectType, SignedFields } from '../../src/ticket/signed-object.ts'
import { encodeCbor } from '../../src/wire/cbor.ts'
import { portableEd25519 } from '../../src/wire/ed25519.ts'
import { decodeEnvelope, seal } from '../../src/wire/envelope.ts'
import { makeKey } from '../ticket/fixtures.ts'
import { chainCases } from './chain-cases.ts'
import { fraudCases } from './fraud-cases.ts'
import { sampleTypes, type Sample } from './samples.ts'

const GROUP_ORDER = 2n ** 252n + 27742317777372353535851937790883648493n
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

interface Broken {
  readonly name: string
  readonly why: string
  readonly code: ErrorCode
  /** What the refusal must say, so that a case is not refused for another reason than its name's. */
  readonly says: RegExp
  readonly envelope: Uint8Array
}

type Body = SignedFields & Readonly<Record<string, unknown>>
type Entries = (readonly [string, Uint8Array])[]

/** A map as bytes, with its entries just as given. */
function mapBytes(entries: Entries): Uint8Array {
  const head = entries.length < 24 ? [0xa0 + entries.length] : [0xb8, entries.length]
  return Buffer.concat([
    Uint8Array.from(head),
    ...entries.flatMap(([key, value]) => [encodeCbor(key), value])
  ])
}

/** The entries of a body in their canonical order: shorter keys first, then by their bytes. */
function entriesOf(body: Body): Entries {
  return Object.entries(body)
    .sort(([a], [b]) => a.length - b.length || (a < b ? -1 : 1))
    .map(([key, value]) => [key, encodeCbor(value)] as const)
}

function payloadOf(type: string, body: Uint8Array): Uint8Array {
  return mapBytes([
    ['body', body],
    ['type', encodeCbor(type)],
    ['version', encodeCbor(1)]
  ])
}

function replaced(entries: Entries, key: string, value: Uint8Array): Entries {
  return entries.map(([name, before]) => [name, name === key ? value : before] as const)
}

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))
const notEd25519 = base58btc.encode(Uint8Array.of(0x12, 0x20, ...new Uint8Array(32).fill(7))).slice(1)

/** Signed as they should be: only the decoder stands between them and belief. */
function brokenPayloads(
  type: string,
  body: Body
): (Omit<Broken, 'envelope' | 'code'> & { readonly payload: Uint8Array })[] {
  const entries = entriesOf(body)
  const [first, second, ...rest] = entries
  if (first === undefined || second === undefined) throw new TypeError('a body has more than one field')
  const raw = (changed: Entries): Uint8Array => payloadOf(type, mapBytes(changed))
  const plain = (changed: unknown): Uint8Array => encodeCbor({ type, version: 1, body: changed })
  const { seq: _seq, ...withoutSeq } = body
  let deep: unknown = 0
  for (let level = 0; level < 20; level++) deep = [deep]
  return [
    {
      name: 'non-canonical integer',
      why: 'seq is written in two bytes where one is enough',
      says: /./,
      payload: raw(replaced(entries, 'seq', bytes('1801')))
    },
    {
      name: 'unsorted keys',
      why: 'the first two keys of the body are in the wrong order',
      says: /canonical/,
      payload: raw([second, first, ...rest])
    },
    {
      name: 'extra field',
      why: 'the body has a field that its type does not have',
      says: /extra/,
      payload: plain({ ...body, extra: 1 })
    },
    { name: 'missing field', why: 'the body has no seq', says: /seq/, payload: plain(withoutSeq) },
    {
      name: 'float',
      why: 'seq is 1.0, a float of 64 bits',
      says: /./,
      payload: raw(replaced(entries, 'seq', bytes('fb3ff0000000000000')))
    },
    {
      name: 'duplicate key',
      why: 'the first key of the body comes twice',
      says: /./,
      payload: raw([first, first, second, ...rest])
    },
    {
      name: 'trailing bytes',
      why: 'a byte follows the payload',
      says: /after the end/,
      payload: Buffer.concat([plain(body), Uint8Array.of(0)])
    },
    {
      name: 'indefinite length',
      why: 'the body is a map of indefinite length',
      says: /indefinite/,
      payload: payloadOf(
        type,
        Buffer.concat([Uint8Array.of(0xbf), mapBytes(entries).subarray(1), Uint8Array.of(0xff)])
      )
    },
    {
      name: 'tag',
      why: 'seq stands behind a tag',
      says: /tags/,
      payload: raw(replaced(entries, 'seq', bytes('c101')))
    },
    {
      name: 'too deep',
      why: 'a field holds twenty arrays in one another',
      says: /nested deeper/,
      payload: plain({ ...body, extra: deep })
    },
    {
      name: 'notAfter before notBefore',
      why: 'the interval ends before it begins',
      says: /notAfter must come after notBefore/,
      payload: plain({ ...body, notBefore: body.notAfter, notAfter: body.notBefore })
    },
    {
      name: 'empty interval',
      why: 'notAfter equals notBefore',
      says: /notAfter must come after notBefore/,
      payload: plain({ ...body, notAfter: body.notBefore })
    },
    { name: 'negative seq', why: 'seq is -1', says: /seq/, payload: plain({ ...body, seq: -1 }) },
    {
      name: 'not-an-ed25519 peer id',
      why: 'the issuer is a peer ID that is the hash of a key',
      says: /issuer: expected an ed25519 peer ID/,
      payload: plain({ ...body, issuer: notEd25519 })
    },
    {
      name: 'other version',
      why: 'the version is 2',
      says: /version/,
      payload: encodeCbor({ type, version: 2, body })
    },
    {
      name: "another type's name",
      why: 'the payload says that it is of another type',
      says: /type/,
      payload: encodeCbor({ type: otherType(type), version: 1, body })
    }
  ]
}

function otherType(type: string): string {
  return type === 'lease' ? 'ticket' : 'lease'
}

function brokenSignatures(type: string, body: Body, key: SigningKey): Omit<Broken, 'code'>[] {
  const payload = encodeCbor({ type, version: 1, body })
  const good = decodeEnvelope(seal(type, payload, key.seed, portableEd25519))
  const stranger = makeKey()
  const says = /is not its signer's/
  const flipped = good.signature.slice()
  flipped[40] = (flipped[40] ?? 0) ^ 1
  return [
    {
      name: "wrong type's domain",
      why: 'signed as an object of another type',
      says,
      envelope: seal(otherType(type), payload, key.seed, portableEd25519)
    },
    {
      name: 'wrong issuer',
      why: 'signed by somebody else than the issuer that it names',
      says: /not signed by the issuer/,
      envelope: seal(type, payload, stranger.seed, portableEd25519)
    },
    {
      name: 'altered payload',
      why: 'seq was raised by one after signing',
      says,
      envelope: encodeCbor({
        ...good,
        payload: encodeCbor({ type, version: 1, body: { ...body, seq: body.seq + 1 } })
      })
    },
    {
      name: 'altered signature',
      why: 'one bit of the signature was changed',
      says,
      envelope: encodeCbor({ ...good, signature: flipped })
    },
    {
      name: 'S + L',
      why: 'the order of the group was added to the second half of the signature',
      says,
      envelope: encodeCbor({ ...good, signature: plusOrder(good.signature) })
    }
  ]
}

function plusOrder(signature: Uint8Array): Uint8Array {
  const s = BigInt(`0x${Buffer.from(signature.subarray(32)).reverse().toString('hex')}`) + GROUP_ORDER
  const half = Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse()
  return new Uint8Array([...signature.subarray(0, 32), ...half])
}

function brokenEnvelopes(type: string, body: Body, key: SigningKey): Broken[] {
  const payload = encodeCbor({ type, version: 1, body })
  const envelope = seal(type, payload, key.seed, portableEd25519)
  const { signer, signature } = decodeEnvelope(envelope)
  const code = 'ENCODING_INVALID'
  const found: Broken[] = [
    {
      name: 'trailing bytes after the envelope',
      why: 'a byte follows the envelope',
      code,
      says: /after the end/,
      envelope: Buffer.concat([envelope, Uint8Array.of(0)])
    },
    {
      name: 'unsorted keys of the envelope',
      why: 'payload stands before signer',
      code,
      says: /canonical/,
      envelope: mapBytes([
        ['payload', encodeCbor(payload)],
        ['signer', encodeCbor(signer)],
        ['signature', encodeCbor(signature)]
      ])
    },
    {
      name: 'extra field of the envelope',
      why: 'the envelope has a fourth field',
      code,
      says: /extra/,
      envelope: encodeCbor({ payload, signer, signature, extra: 1 })
    },
    {
      name: 'short signer',
      why: 'the public key has 31 bytes',
      code,
      says: /signer: expected 32 bytes/,
      envelope: encodeCbor({ payload, signer: signer.subarray(1), signature })
    },
    {
      name: 'cut off',
      why: 'the last byte of the envelope is missing',
      code,
      says: /cut off/,
      envelope: envelope.subarray(0, -1)
    }
  ]
  // Large, and the same rule for all: one is enough.
  if (type === 'ticket') {
    found.push({
      name: 'oversized',
      why: 'the envelope has more than 16,384 bytes',
      code: 'TOO_LARGE',
      says: /at most 16384/,
      envelope: seal(
        type,
        encodeCbor({ type, version: 1, body: { ...body, extra: new Uint8Array(16_384) } }),
        key.seed,
        portableEd25519
      )
    })
  }
  return found
}

function requireRefusal(object: ObjectType<SignedFields>, { name, code, says, envelope }: Broken): void {
  try {
    object.open(envelope)
  } catch (error) {
    if (error instanceof SlicenetError && error.code === code && says.test(error.message)) return
    throw new Error(`${object.type}, ${name}: refused for another reason`, { cause: error })
  }
  throw new Error(`${object.type}, ${name}: not refused`)
}

/** JSON of a body; bytes become `{"hex": "…"}`. */
function bodyJson(body: unknown): unknown {
  return JSON.parse(
    JSON.stringify(body, (_key, value: unknown) =>
      value instanceof Uint8Array ? { hex: hex(value) } : value
    )
  )
}

function validCase({ object, name, why, body, key }: Sample): object {
  const { id, bytes } = object.sign(body, key)
  return { name, valid: true, why, envelope: hex(bytes), issuer: key.principal, id, body: bodyJson(body) }
}

function brokenCases({ object, body, key }: Sample): object[] {
  const fields = body as Body
  const broken: Broken[] = [
    ...brokenPayloads(object.type, fields).map(({ payload, ...rest }) => ({
      ...rest,
      code: 'ENCODING_INVALID' as const,
      envelope: seal(object.type, payload, key.seed, portableEd25519)
    })),
    ...brokenSignatures(object.type, fields, key).map((one) => ({
      ...one,
      code: 'SIGNATURE_INVALID' as const
    })),
    ...brokenEnvelopes(object.type, fields, key)
  ]
  for (const one of broken) requireRefusal(object, one)
  return broken.map(({ name, why, code, envelope }) => ({
    name,
    valid: false,
    why,
    envelope: hex(envelope),
    code
  }))
}

function write(name: string, content: object): void {
  writeFileSync(new URL(`${name}.json`, import.meta.url), `${JSON.stringify(content, undefined, 1)}\n`)
}

const MAKERS: Readonly<Record<string, () => object>> = {
  ...Object.fromEntries(
    Object.entries(sampleTypes()).map(([type, samples]) => [
      type,
      // What is broken is broken in the ordinary one.
      () => ({ type, cases: [...samples.map(validCase), ...samples.slice(0, 1).flatMap(brokenCases)] })
    ])
  ),
  chain: () => ({ cases: chainCases() }),
  fraud: () => ({ cases: fraudCases() })
}

const names = process.argv.slice(2)
const unknown = names.find((name) => !Object.hasOwn(MAKERS, name))
if (names.length === 0 || unknown !== undefined) {
  process.stderr.write(`usage: node test/vectors/generate.ts NAME..., of ${Object.keys(MAKERS).join(', ')}\n`)
  process.exit(2)
}
for (const name of names) write(name, MAKERS[name]?.() ?? {})

/** Every decoder that reads what peers send, with good inputs of it. */
import { readFileSync } from 'node:fs'
import { LIMITS } from '../../src/base/limits.ts'
import { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import { brokerProtocol } from '../../src/protocol/broker-protocol.ts'
import { directoryProtocol } from '../../src/protocol/directory-protocol.ts'
import { imageProtocol } from '../../src/protocol/image-protocol.ts'
import { membershipProtocol } from '../../src/protocol/membership-protocol.ts'
import { measureProtocol } from '../../src/protocol/measure-protocol.ts'
import type { AnyMethod } from '../../src/protocol/method.ts'
import { nodeProtocol } from '../../src/protocol/node-protocol.ts'
import { reachProtocol } from '../../src/protocol/reach-protocol.ts'
import { advertisementObject } from '../../src/ticket/advertisement.ts'
import { delegationObject } from '../../src/ticket/delegation.ts'
import { inviteObject } from '../../src/ticket/invite.ts'
import { leaseObject } from '../../src/ticket/lease.ts'
import { membershipObject } from '../../src/ticket/membership.ts'
import { principalOfPublicKey } from '../../src/ticket/principal.ts'
import { redeemObject } from '../../src/ticket/redeem.ts'
import { fraudProofObject } from '../../src/ticket/fraud-proof.ts'
import { openBundle } from '../../src/ticket/fraud-bundle.ts'
import { refusalObject } from '../../src/ticket/refusal.ts'
import { revocationObject } from '../../src/ticket/revocation.ts'
import { logRootObject } from '../../src/ticket/log-root.ts'
import { surrenderObject } from '../../src/ticket/surrender.ts'
import { fraud } from '../ticket/frauds.ts'
import type { ObjectType, SignedFields } from '../../src/ticket/signed-object.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
import { decodeCbor, encodeCbor } from '../../src/wire/cbor.ts'
import { cborCodec, type Schema } from '../../src/wire/codec.ts'
import { nativeEd25519 } from '../../src/wire/ed25519.ts'
import { decodeEnvelope, seal } from '../../src/wire/envelope.ts'
import type { Numbers } from '../base/seeded-numbers.ts'
import {
  goodAgentMessages,
  goodBrokerMessages,
  goodDirectoryMessages,
  goodMeasureMessages,
  goodImageMessages,
  goodMembershipMessages,
  goodNodeMessages,
  goodReachMessages,
  type GoodMethod
} from './good-messages.ts'

export interface Decoder {
  readonly name: string
  readonly corpus: readonly Uint8Array[]
  /** Decodes, and encodes again what came of it; throws when it refuses. */
  readonly roundTrip: (bytes: Uint8Array) => Uint8Array
}

const MESSAGE_LIMITS = { bytesMax: LIMITS.messageBytesMax, depthMax: LIMITS.objectDepthMax + 8 }

/** From the vectors, for the same seed to give the same inputs in every run. */
function goodEnvelopes(type: string): Uint8Array[] {
  const text = readFileSync(new URL(`../vectors/${type}.json`, import.meta.url), 'utf8')
  const { cases } = JSON.parse(text) as { cases: { valid: boolean; envelope: string }[] }
  return cases
    .filter(({ valid }) => valid)
    .map(({ envelope }) => Uint8Array.from(Buffer.from(envelope, 'hex')))
}

export function everyDecoder(number: Numbers): Decoder[] {
  const seed = new Uint8Array(32).map(() => number(256))
  const objects = [
    ...objectDecoders(advertisementObject, seed),
    ...objectDecoders(delegationObject, seed),
    ...objectDecoders(ticketObject, seed),
    ...objectDecoders(redeemObject, seed),
    ...objectDecoders(leaseObject, seed),
    ...objectDecoders(refusalObject, seed),
    ...objectDecoders(revocationObject, seed),
    ...objectDecoders(surrenderObject, seed),
    ...objectDecoders(logRootObject, seed),
    ...objectDecoders(fraudProofObject, seed),
    ...objectDecoders(membershipObject, seed),
    ...objectDecoders(inviteObject, seed)
  ]
  const messages = [
    ...methodDecoders(agentProtocol.methods, goodAgentMessages),
    ...methodDecoders(nodeProtocol.methods, goodNodeMessages),
    ...methodDecoders(directoryProtocol.methods, goodDirectoryMessages),
    ...methodDecoders(brokerProtocol.methods, goodBrokerMessages),
    ...methodDecoders(measureProtocol.methods, goodMeasureMessages),
    ...methodDecoders(reachProtocol.methods, goodReachMessages),
    ...methodDecoders(membershipProtocol.methods, goodMembershipMessages),
    ...methodDecoders(imageProtocol.methods, goodImageMessages)
  ]
  return [
    {
      name: 'cbor',
      corpus: [...objects, ...messages].flatMap(({ corpus }) => corpus),
      roundTrip: (bytes) => encodeCbor(decodeCbor(bytes))
    },
    {
      name: 'envelope',
      corpus: goodEnvelopes('ticket'),
      roundTrip: (bytes) => encodeCbor({ ...decodeEnvelope(bytes) })
    },
    { name: 'bundle', corpus: [fraud().bytes], roundTrip: (bytes) => openBundle(bytes).bytes },
    ...objects,
    ...messages
  ]
}

/** Once as it comes from a stranger, and once well signed by whoever made the payload, to reach what lies behind. */
function objectDecoders<T extends SignedFields>(object: ObjectType<T>, seed: Uint8Array): Decoder[] {
  const { type } = object
  const corpus = goodEnvelopes(type)
  const issuer = principalOfPublicKey(nativeEd25519.publicKey(seed))
  const payloads = corpus.map((bytes) => {
    const { body } = object.open(bytes)
    return encodeCbor({ type, version: 1, body: { ...body, issuer } })
  })
  const payloadOf = ({ body }: { body: T }): Uint8Array => encodeCbor({ type, version: 1, body })
  return [
    {
      name: type,
      corpus,
      roundTrip(bytes) {
        const { signer, signature } = decodeEnvelope(bytes)
        return encodeCbor({ payload: payloadOf(object.open(bytes)), signer, signature })
      }
    },
    {
      name: `${type}, signed`,
      corpus: payloads,
      roundTrip: (payload) => payloadOf(object.open(seal(type, payload, seed, nativeEd25519)))
    }
  ]
}

function methodDecoders(
  methods: Readonly<Record<string, AnyMethod>>,
  good: Readonly<Record<string, GoodMethod>>
): Decoder[] {
  return Object.entries(methods).flatMap(([method, { params, result, item, input }]) => {
    const schemas: Readonly<Record<string, Schema<unknown> | undefined>> = { params, result, item, input }
    return Object.entries(schemas).flatMap(([part, schema]): Decoder[] => {
      if (schema === undefined) return []
      const codec = cborCodec(schema, MESSAGE_LIMITS)
      const value = good[method]?.[part as keyof GoodMethod]
      if (value === undefined) throw new TypeError(`no good ${part} of ${method} to begin with`)
      return [
        {
          name: `${method} ${part}`,
          corpus: [encodeCbor(value)],
          roundTrip: (bytes) => codec.encode(codec.decode(bytes))
        }
      ]
    })
  })
}

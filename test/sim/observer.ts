/**
 * The one who sees everything: every message as it leaves its sender, and every signed object in one. What it has seen
 * is what the invariants are told in.
 */
import * as dagCbor from '@ipld/dag-cbor'
import { decodeEnvelope, payloadId } from '../../src/wire/envelope.ts'
import type { Host } from './host.ts'
import type { Wiretap } from './network.ts'

export interface SeenObject {
  readonly id: string
  readonly type: string
  readonly body: Readonly<Record<string, unknown>>
  /** The envelope. */
  readonly bytes: Uint8Array
}

export interface Exchange {
  readonly from: Host
  readonly to: Host
  readonly method: string
  readonly params: Readonly<Record<string, unknown>>
}

export interface Witness {
  /** A request leaves its caller. */
  asked(exchange: Exchange): void
  /** A reply that is a result leaves the callee; `from` is still the caller. */
  answered(exchange: Exchange, result: Readonly<Record<string, unknown>>): void
}

export class Observer implements Wiretap {
  readonly #objects = new Map<string, SeenObject>()
  readonly #byBytes = new Map<string, SeenObject>()
  readonly #witnesses: Witness[] = []
  readonly #exchanges = new WeakMap<Uint8Array, Exchange>()

  addWitness(witness: Witness): void {
    this.#witnesses.push(witness)
  }

  objects(): SeenObject[] {
    return [...this.#objects.values()]
  }

  find(id: string): SeenObject | undefined {
    return this.#objects.get(id)
  }

  request(from: Host, to: Host, bytes: Uint8Array): void {
    const [message] = messagesOf(bytes)
    const exchange = { from, to, ...(message as unknown as Pick<Exchange, 'method' | 'params'>) }
    this.#exchanges.set(bytes, exchange)
    this.#collect(exchange.params)
    for (const witness of this.#witnesses) witness.asked(exchange)
  }

  reply(request: Uint8Array, bytes: Uint8Array): void {
    const exchange = this.#exchanges.get(request)
    if (exchange === undefined) throw new TypeError('an answer to what was not asked')
    for (const message of messagesOf(bytes)) {
      this.#collect(message)
      if (!('result' in message)) continue
      const result = message['result'] as Record<string, unknown>
      for (const witness of this.#witnesses) witness.answered(exchange, result)
    }
  }

  /** Opens an envelope, without a look at its signature. */
  open(bytes: Uint8Array): SeenObject {
    const key = Buffer.from(bytes).toString('latin1')
    const known = this.#byBytes.get(key)
    if (known !== undefined) return known
    const { payload } = decodeEnvelope(bytes)
    const { type, body } = dagCbor.decode<Pick<SeenObject, 'type' | 'body'>>(payload)
    const seen = { id: payloadId(payload), type, body, bytes: Uint8Array.from(bytes) }
    this.#byBytes.set(key, seen)
    this.#objects.set(seen.id, seen)
    return seen
  }

  #collect(value: unknown): void {
    if (value instanceof Uint8Array) {
      if (isEnvelope(value)) this.open(value)
    } else if (typeof value === 'object' && value !== null) {
      for (const inner of Object.values(value)) this.#collect(inner)
    }
  }
}

/** An envelope is a map of three whose first key is `signer`. */
function isEnvelope(bytes: Uint8Array): boolean {
  return bytes.length > 100 && bytes[0] === 0xa3 && bytes[1] === 0x66
}

/** Messages with their lengths before them, as `writeMessage` writes them. */
function messagesOf(bytes: Uint8Array): Record<string, unknown>[] {
  const messages: Record<string, unknown>[] = []
  for (let at = 0; at < bytes.length;) {
    let length = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++] ?? 0
      length += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) break
    }
    messages.push(dagCbor.decode(bytes.subarray(at, at + length)))
    at += length
  }
  return messages
}

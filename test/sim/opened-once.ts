/**
 * Opening a signed object is a pure function of its bytes, and half of what a simulation would spend its time on: the
 * hosts of one process pass the same objects around. Each is opened once, one that was signed here not at all, and
 * frozen, so that nobody sees what another does to it.
 */
import { OBJECT_TYPES } from '../../src/ticket/any-object.ts'
import type { ObjectType, Signed, SignedFields, Unverified } from '../../src/ticket/signed-object.ts'

const remembered: Map<string, unknown>[] = []

/** From now on, in this process. */
export function openOnce(): void {
  if (remembered.length > 0) return
  for (const type of Object.values(OBJECT_TYPES)) rememberOpened(type as ObjectType<SignedFields>)
}

/** Between simulations, so that memory does not grow. */
export function forgetOpened(): void {
  for (const known of remembered) known.clear()
}

function rememberOpened<T extends SignedFields>(type: ObjectType<T>): void {
  const decoded = new Map<string, Unverified<T>>()
  remembered.push(decoded)
  const remember = (id: string, body: T, bytes: Uint8Array, verify: () => Signed<T>): Unverified<T> => {
    let signed: Signed<T> | undefined
    const once: Unverified<T> = { id, body, verify: () => (signed ??= verify()) }
    decoded.set(Buffer.from(bytes).toString('latin1'), once)
    return once
  }
  const decode = type.decode.bind(type)
  const sign = type.sign.bind(type)
  type.sign = (body, key) => {
    const signed = sign(body, key)
    freeze(signed.body)
    remember(signed.id, signed.body, signed.bytes, () => signed)
    return signed
  }
  type.decode = (bytes) => {
    const key = Buffer.from(bytes).toString('latin1')
    const known = decoded.get(key)
    if (known !== undefined) return known
    const fresh = decode(Uint8Array.from(bytes))
    freeze(fresh.body)
    return remember(fresh.id, fresh.body, bytes, () => fresh.verify())
  }
  type.open = (bytes) => type.decode(bytes).verify()
}

function freeze(value: unknown): void {
  // Bytes cannot be frozen.
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return
  for (const inner of Object.values(value)) freeze(inner)
  Object.freeze(value)
}

/**
 * Opening an advert is a pure function of its bytes, and most of what a simulation of thousands would spend its time on.
 * The same bytes are opened once; they are forgotten with the last who holds them.
 */
import { advertisementObject, type Advertisement } from '../../src/ticket/advertisement.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'

let isOn = false

/** From now on, in this process. */
export function openOnce(): void {
  if (isOn) return
  isOn = true
  const known = new WeakMap<Uint8Array, Signed<Advertisement>>()
  const sign = advertisementObject.sign.bind(advertisementObject)
  const open = advertisementObject.open.bind(advertisementObject)
  advertisementObject.sign = (body, key) => {
    const signed = sign(body, key)
    known.set(signed.bytes, signed)
    return signed
  }
  advertisementObject.open = (bytes, ed25519) => {
    const opened = known.get(bytes) ?? open(bytes, ed25519)
    known.set(bytes, opened)
    return opened
  }
}

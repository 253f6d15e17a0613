/**
 * The local table of adverts, whichever way they come: checks each before it is kept or passed on, keeps the newest
 * of each principal and role, forgets what expired. Everything in it is a hint (design §4).
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import { advertisementObject, type Advertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { SignerRate } from './signer-rate.ts'

export type AdvertWay = 'gossip' | 'pull' | 'dht' | 'direct' | 'own'
export type AdvertRole = Advertisement['role']

export interface DirectoryEntry {
  readonly advert: Signed<Advertisement>
  /** UTC ms. */
  readonly receivedAt: number
  readonly via: AdvertWay
}

/** What became of an advert offered to the table. Only `invalid` proves that the sender is at fault. */
export type Verdict = 'new' | 'known' | 'stale' | 'expired' | 'not-yet' | 'too-often' | 'full' | 'invalid'

export interface Offered {
  readonly verdict: Verdict
  /** Unless the bytes are no advert. */
  readonly advert?: Signed<Advertisement>
}

/** `<peer id>/<role>`: a daemon may be node and agent under one key. */
export function advertKey(principal: Principal, role: AdvertRole): string {
  return `${principal}/${role}`
}

export function keyOfAdvert(advert: Signed<Advertisement>): string {
  return advertKey(advert.body.issuer, advert.body.role)
}

/** What is remembered of one key, longer than its advert lives: a replay of an older one must not look new. */
interface Slot {
  newestSeq: number
  /** UTC ms from which no older advert can be valid. */
  forgetAt: number
  entry: DirectoryEntry | undefined
  /** Whether the principal cannot be reached: its advert counts no more, until there is a newer one. */
  isLost: boolean
  readonly rate: SignerRate
}

/** What others are told of: a leaving as well, but nobody that this peer alone has lost. */
function isHeld({ entry, isLost }: Slot, now: number): boolean {
  return entry !== undefined && !isLost && entry.advert.body.notAfter > now
}

function isPresent(slot: Slot, now: number): boolean {
  return isHeld(slot, now) && slot.entry?.advert.body.leaving !== true
}

function keptSeq({ entry }: Slot): number {
  return entry?.advert.body.seq ?? -1
}

interface Listeners {
  update: Set<(entry: DirectoryEntry) => void>
  expire: Set<(entry: DirectoryEntry) => void>
}

export class AdvertTable {
  readonly #clock: Clock
  readonly #slots = new Map<string, Slot>()
  readonly #entriesMax: number
  #news = 0
  readonly #listeners: Listeners = { update: new Set(), expire: new Set() }

  constructor(components: { readonly clock: Clock }, init: { readonly entriesMax?: number } = {}) {
    this.#clock = components.clock
    this.#entriesMax = init.entriesMax ?? LIMITS.directoryEntriesMax
  }

  /** How many adverts were news so far. */
  get news(): number {
    return this.#news
  }

  on(event: keyof Listeners, listener: (entry: DirectoryEntry) => void): () => void {
    this.#listeners[event].add(listener)
    return () => this.#listeners[event].delete(listener)
  }

  /** Checks an advert from anybody and keeps it if it is news. The way may depend on whose it is. */
  offer(bytes: Uint8Array, way: AdvertWay | ((advert: Signed<Advertisement>) => AdvertWay)): Offered {
    const { verdict, advert } = this.#check(bytes)
    if (verdict !== 'new') return { verdict, ...(advert === undefined ? {} : { advert }) }
    const via = typeof way === 'function' ? way(advert) : way
    const slot = this.#slotFor(advert, via)
    if (slot === undefined) return { verdict: 'full', advert }
    // Whoever holds the key makes its own adverts: only those of others are counted.
    if (via !== 'own' && !slot.rate.take(this.#clock.monotonic())) return { verdict: 'too-often', advert }
    this.#note(slot, advert)
    const entry: DirectoryEntry = { advert, receivedAt: this.#clock.now(), via }
    if (advert.body.leaving === true) this.#expire(slot)
    slot.entry = entry
    slot.isLost = false
    this.#news += 1
    if (advert.body.leaving !== true) for (const listener of this.#listeners.update) listener(entry)
    return { verdict: 'new', advert }
  }

  /** The principal of that key cannot be reached since it said this: until it says more it counts as gone, here. */
  lose(key: string, entry: DirectoryEntry): void {
    const slot = this.#slots.get(key)
    if (slot?.entry !== entry) return
    this.#expire(slot)
    slot.isLost = true
  }

  /**
   * Checks an advert that is to be kept elsewhere, such as a record of the DHT: the newest one known passes as well.
   * Remembers its sequence number, so that an older one does not pass after it.
   */
  witness(bytes: Uint8Array): Offered {
    const { verdict, advert } = this.#check(bytes)
    if (advert !== undefined && verdict === 'new') {
      const slot = this.#slotFor(advert, 'dht')
      if (slot !== undefined) this.#note(slot, advert)
    }
    return { verdict, ...(advert === undefined ? {} : { advert }) }
  }

  /** Live ones only, of principals that are there. */
  entries(): DirectoryEntry[] {
    return this.#entriesThat(isPresent)
  }

  /**
   * What is exchanged with others: those who leave are among it, so that everybody hears of that; what the DHT had is not,
   * for its records outlive those who made them by more.
   */
  held(): DirectoryEntry[] {
    return this.#entriesThat((slot, now) => isHeld(slot, now) && slot.entry?.via !== 'dht')
  }

  get(key: string): DirectoryEntry | undefined {
    const slot = this.#slots.get(key)
    return slot !== undefined && isPresent(slot, this.#clock.now()) ? slot.entry : undefined
  }

  /** Whether an advert of this key and sequence number would be news. */
  lacks(key: string, seq: number): boolean {
    const slot = this.#slots.get(key)
    return slot === undefined || (seq >= slot.newestSeq && seq > keptSeq(slot))
  }

  /** Drops what expired; to be called now and then. */
  sweep(): void {
    const now = this.#clock.now()
    for (const [key, slot] of this.#slots) {
      const { entry } = slot
      if (entry !== undefined && entry.advert.body.notAfter <= now) {
        this.#expire(slot)
        slot.entry = undefined
      }
      if (slot.entry === undefined && slot.forgetAt <= now) this.#slots.delete(key)
    }
  }

  #entriesThat(test: (slot: Slot, now: number) => boolean): DirectoryEntry[] {
    const now = this.#clock.now()
    const found: DirectoryEntry[] = []
    for (const slot of this.#slots.values()) {
      if (slot.entry !== undefined && test(slot, now)) found.push(slot.entry)
    }
    return found
  }

  /** Tells that what is in the slot counts no more, unless that was told before. */
  #expire({ entry, isLost }: Slot): void {
    if (entry === undefined || isLost || entry.advert.body.leaving === true) return
    for (const listener of this.#listeners.expire) listener(entry)
  }

  #check(
    bytes: Uint8Array
  ):
    | { verdict: 'invalid'; advert?: Signed<Advertisement> }
    | { verdict: Exclude<Verdict, 'invalid' | 'full' | 'too-often'>; advert: Signed<Advertisement> } {
    let advert: Signed<Advertisement>
    try {
      advert = advertisementObject.open(bytes)
    } catch {
      return { verdict: 'invalid' }
    }
    const { notBefore, notAfter, seq } = advert.body
    const now = this.#clock.now()
    if (notAfter - notBefore > LIMITS.advertLifetimeMsMax) return { verdict: 'invalid', advert }
    if (notAfter <= now) return { verdict: 'expired', advert }
    if (notBefore > now + LIMITS.advertSkewMsMax) return { verdict: 'not-yet', advert }
    const slot = this.#slots.get(keyOfAdvert(advert))
    if (slot === undefined || seq > slot.newestSeq) return { verdict: 'new', advert }
    if (seq < slot.newestSeq) return { verdict: 'stale', advert }
    // Witnessed, but not kept so far.
    if (keptSeq(slot) < seq) return { verdict: 'new', advert }
    return { verdict: slot.entry?.advert.id === advert.id ? 'known' : 'stale', advert }
  }

  #note(slot: Slot, advert: Signed<Advertisement>): void {
    slot.newestSeq = Math.max(slot.newestSeq, advert.body.seq)
    const oldestGone = this.#clock.now() + LIMITS.advertLifetimeMsMax + LIMITS.advertSkewMsMax
    slot.forgetAt = Math.max(slot.forgetAt, oldestGone)
  }

  #slotFor(advert: Signed<Advertisement>, via: AdvertWay): Slot | undefined {
    const key = keyOfAdvert(advert)
    const known = this.#slots.get(key)
    if (known !== undefined) return known
    if (this.#slots.size >= this.#entriesMax && !this.#makeRoom(via)) return undefined
    const slot: Slot = {
      newestSeq: advert.body.seq,
      forgetAt: 0,
      entry: undefined,
      isLost: false,
      rate: new SignerRate()
    }
    this.#slots.set(key, slot)
    return slot
  }

  /**
   * Keys cost nothing, so anybody can fill the table. What the principals themselves handed over stays; of the rest
   * the one nearest its end goes.
   */
  #makeRoom(via: AdvertWay): boolean {
    let victim: string | undefined
    let victimEnd = Infinity
    for (const [key, { entry }] of this.#slots) {
      if (entry === undefined) {
        this.#slots.delete(key)
        return true
      }
      const held = entry.via === 'own' || (entry.via === 'direct' && via !== 'own')
      if (!held && entry.advert.body.notAfter < victimEnd) {
        victim = key
        victimEnd = entry.advert.body.notAfter
      }
    }
    return victim !== undefined && this.#slots.delete(victim)
  }
}

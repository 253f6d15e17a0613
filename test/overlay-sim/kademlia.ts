/**
 * The part of kad-dht that decides what a query costs: routing tables as they are in an overlay that has settled, and
 * the walk along disjoint paths to the peers nearest a key, with k = 20 as kad-dht has it.
 */
import { createHash } from 'node:crypto'

const BUCKET_MAX = 20
const ID_BITS = 32

export interface KademliaInit {
  readonly paths: number
  /** Questions that one path has under way. */
  readonly alpha: number
}

/** The first bits of what kad-dht measures distances by: enough to tell tens of thousands of peers apart. */
export function kadId(bytes: Uint8Array | string): number {
  return createHash('sha256').update(bytes).digest().readUInt32BE(0)
}

export interface Contact {
  readonly kadId: number
}

export interface Walk<C> {
  /** Those that answered, and those that did not. */
  readonly asked: readonly C[]
  readonly dead: readonly C[]
  /** The nearest of those that answered, at most twenty. */
  readonly nearest: readonly C[]
  /** How many answers in a row the longest path waited for. */
  readonly hops: number
}

export class Kademlia<C extends Contact> {
  #contacts: C[] = []
  readonly #tables = new Map<C, C[]>()
  readonly #number: (max: number) => number
  readonly #init: KademliaInit

  /** `number` gives a whole number from 0 to below `max`. */
  constructor(number: (max: number) => number, init: KademliaInit) {
    this.#number = number
    this.#init = init
  }

  get size(): number {
    return this.#contacts.length
  }

  /** Whom routing tables may hold from now on. */
  setContacts(contacts: readonly C[]): void {
    this.#contacts = [...contacts].sort((a, b) => a.kadId - b.kadId)
    this.#tables.clear()
  }

  /** How many buckets of a peer's table have somebody in them: each is refreshed by a query of its own. */
  buckets(of: C): number {
    let deepest = 0
    for (const contact of this.#tableOf(of)) deepest = Math.max(deepest, commonBits(of.kadId, contact.kadId))
    return deepest + 1
  }

  /** Asks its way from `from` to the peers nearest `target`. `answers` says who does. */
  walk(from: C, target: number, answers: (contact: C) => boolean): Walk<C> {
    const seen = new Set<C>([from])
    const start = nearest(this.#tableOf(from), target, BUCKET_MAX)
    const paths = Array.from({ length: this.#init.paths }, (): Path<C> => ({ queue: [], closest: [] }))
    start.forEach((contact, index) => {
      seen.add(contact)
      paths[index % this.#init.paths]!.queue.push(contact)
    })
    const asked: C[] = []
    const dead: C[] = []
    let hops = 0
    while (paths.some(({ queue }) => queue.length > 0)) {
      hops += 1
      for (const path of paths)
        this.#step(path, target, seen, (contact) => {
          const isThere = answers(contact)
          ;(isThere ? asked : dead).push(contact)
          return isThere
        })
    }
    return { asked, dead, nearest: nearest(asked, target, BUCKET_MAX), hops }
  }

  /** All that wait on a path are asked at once: there are never more than α of them worth asking. */
  #step(path: Path<C>, target: number, seen: Set<C>, ask: (contact: C) => boolean): void {
    const round = path.queue
      .sort((a, b) => distance(a, target) - distance(b, target))
      .splice(0, this.#init.alpha)
    for (const contact of round) {
      if (!fits(path.closest, distance(contact, target)) || !ask(contact)) continue
      path.closest.push(distance(contact, target))
      path.closest.sort((a, b) => a - b).splice(BUCKET_MAX)
      for (const closer of nearest(this.#tableOf(contact), target, BUCKET_MAX)) {
        if (seen.has(closer) || distance(closer, target) >= distance(contact, target)) continue
        if (!fits(path.closest, distance(closer, target))) continue
        seen.add(closer)
        path.queue.push(closer)
      }
    }
  }

  /** Up to twenty of each distance, by chance as they were met. */
  #tableOf(owner: C): readonly C[] {
    const known = this.#tables.get(owner)
    if (known !== undefined) return known
    const table: C[] = []
    for (let bits = 0; bits < ID_BITS; bits++) {
      const flipped = (owner.kadId ^ (0x80000000 >>> bits)) >>> 0
      const first = (flipped & (0xffffffff << (ID_BITS - 1 - bits))) >>> 0
      const [from, to] = [this.#find(first), this.#find(first + 2 ** (ID_BITS - 1 - bits))]
      if (to - from <= BUCKET_MAX) {
        for (let at = from; at < to; at++) table.push(this.#contacts[at]!)
      } else {
        const picked = new Set<number>()
        while (picked.size < BUCKET_MAX) picked.add(from + this.#number(to - from))
        for (const at of picked) table.push(this.#contacts[at]!)
      }
    }
    this.#tables.set(owner, table)
    return table
  }

  /** Where the first contact that is not below `id` is. */
  #find(id: number): number {
    let [low, high] = [0, this.#contacts.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#contacts[middle]!.kadId < id) low = middle + 1
      else high = middle
    }
    return low
  }
}

interface Path<C> {
  readonly queue: C[]
  /** Distances of the nearest that answered. */
  readonly closest: number[]
}

function fits(closest: readonly number[], far: number): boolean {
  return closest.length < BUCKET_MAX || far < (closest.at(-1) ?? Infinity)
}

function distance({ kadId: id }: Contact, target: number): number {
  return (id ^ target) >>> 0
}

/** The nearest first; by insertion, which is faster than sorting all when few are wanted. */
function nearest<C extends Contact>(contacts: readonly C[], target: number, max: number): C[] {
  const found: C[] = []
  const far: number[] = []
  for (const contact of contacts) {
    const away = distance(contact, target)
    let at = found.length
    if (at === max && away >= far[at - 1]!) continue
    if (at < max) at += 1
    at -= 1
    for (; at > 0 && far[at - 1]! > away; at--) {
      far[at] = far[at - 1]!
      found[at] = found[at - 1]!
    }
    far[at] = away
    found[at] = contact
  }
  return found
}

function commonBits(a: number, b: number): number {
  return Math.clz32((a ^ b) >>> 0)
}

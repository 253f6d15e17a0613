/** Sets of small numbers, for searches that go over the same few hundred of them again and again. Pure. */

export class Bits {
  readonly #words: Uint32Array

  constructor(size: number) {
    this.#words = new Uint32Array(Math.ceil(size / 32))
  }

  static full(size: number): Bits {
    const bits = new Bits(size)
    for (let at = 0; at < size; at++) bits.add(at)
    return bits
  }

  add(at: number): void {
    this.#words[at >>> 5] = this.#word(at >>> 5) | (1 << (at & 31))
  }

  delete(at: number): void {
    this.#words[at >>> 5] = this.#word(at >>> 5) & ~(1 << (at & 31))
  }

  has(at: number): boolean {
    return (this.#word(at >>> 5) & (1 << (at & 31))) !== 0
  }

  /** Those in both. */
  and(other: Bits): Bits {
    const both = new Bits(this.#words.length * 32)
    for (let word = 0; word < this.#words.length; word++) {
      both.#words[word] = this.#word(word) & other.#word(word)
    }
    return both
  }

  /** Those that are not in the other. */
  without(other: Bits): Bits {
    const left = new Bits(this.#words.length * 32)
    for (let word = 0; word < this.#words.length; word++) {
      left.#words[word] = this.#word(word) & ~other.#word(word)
    }
    return left
  }

  copy(): Bits {
    return this.and(this)
  }

  get size(): number {
    let size = 0
    for (const each of this.#words) {
      let word = each
      while (word !== 0) {
        word &= word - 1
        size += 1
      }
    }
    return size
  }

  /** The smallest; -1 when there is none. */
  first(): number {
    for (let word = 0; word < this.#words.length; word++) {
      const bits = this.#word(word)
      if (bits !== 0) return word * 32 + (31 - Math.clz32(bits & -bits))
    }
    return -1
  }

  /** In order. */
  *[Symbol.iterator](): Generator<number, void, undefined> {
    for (let word = 0; word < this.#words.length; word++) {
      let bits = this.#word(word)
      while (bits !== 0) {
        const low = bits & -bits
        yield word * 32 + (31 - Math.clz32(low))
        bits ^= low
      }
    }
  }

  #word(at: number): number {
    return this.#words[at] ?? 0
  }
}

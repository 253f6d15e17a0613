/** Changes good inputs a little: their bytes, or the values that the bytes stand for. */
import * as dagCbor from '@ipld/dag-cbor'
import type { Numbers } from '../base/seeded-numbers.ts'

const BYTES = [
  0x00, 0x01, 0x17, 0x18, 0x1b, 0x20, 0x40, 0x60, 0x7f, 0x80, 0x9f, 0xa0, 0xbf, 0xd8, 0xf6, 0xf7, 0xfb, 0xff
]
const VALUES: readonly unknown[] = [
  0,
  -1,
  23,
  24,
  65_536,
  Number.MAX_SAFE_INTEGER,
  Number.MIN_SAFE_INTEGER,
  0.5,
  '',
  'constructor',
  '__proto__',
  'a'.repeat(300),
  '\u{1F600}',
  null,
  true,
  new Uint8Array(0),
  new Uint8Array(33),
  [],
  {},
  [[[[]]]],
  { toString: 1 }
]
const KEYS = ['constructor', '__proto__', 'prototype', 'toString', 'length', 'a', '', 'type']

function pick<T>(list: readonly T[], number: Numbers): T {
  return list[number(list.length)] as T
}

/** Another input, made of one of `corpus`. */
export function mutated(corpus: readonly Uint8Array[], number: Numbers): Uint8Array {
  const good = pick(corpus, number)
  if (number(2) === 0) {
    const value = changedValue(dagCbor.decode(good), number)
    try {
      return dagCbor.encode(value)
    } catch {
      // What cannot be encoded is changed as bytes instead.
    }
  }
  let bytes = good
  for (let times = 1 + number(3); times > 0; times--) bytes = changedBytes(bytes, corpus, number)
  return bytes
}

function changedBytes(bytes: Uint8Array, corpus: readonly Uint8Array[], number: Numbers): Uint8Array {
  const at = number(bytes.length + 1)
  const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)]
  switch (number(7)) {
    case 0:
      return joined(before, [(after[0] ?? 0) ^ (1 << number(8))], after.subarray(1))
    case 1:
      return joined(before, [pick(BYTES, number)], after.subarray(1))
    case 2:
      return joined(before, [pick(BYTES, number)], after)
    case 3:
      return joined(before, [], after.subarray(1 + number(8)))
    case 4:
      return joined(before, after.subarray(0, number(32)), after)
    case 5:
      return before
    default: {
      const other = pick(corpus, number)
      return joined(before, [], other.subarray(number(other.length + 1)))
    }
  }
}

function joined(...parts: readonly [Uint8Array, ArrayLike<number>, Uint8Array]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts.map((part) => Uint8Array.from(part))))
}

function changedValue(value: unknown, number: Numbers): unknown {
  if (Array.isArray(value) && value.length > 0 && number(8) > 0) return changedArray(value, number)
  if (typeof value === 'object' && value !== null && !(value instanceof Uint8Array) && number(8) > 0) {
    return changedMap(Object.entries(value), number)
  }
  if (typeof value === 'number' && number(2) === 0) return value + number(3) - 1
  if (typeof value === 'string' && number(2) === 0) return value.slice(number(value.length + 1))
  return pick(VALUES, number)
}

function changedArray(items: readonly unknown[], number: Numbers): unknown[] {
  const at = number(items.length)
  const item = items[at]
  const way = number(6)
  if (way === 0) return items.toSpliced(at, 1)
  if (way === 1) return items.toSpliced(at, 0, ...Array.from({ length: 1 + number(40) }, () => item))
  return items.with(at, changedValue(item, number))
}

function changedMap(entries: readonly [string, unknown][], number: Numbers): unknown {
  const at = number(entries.length)
  const entry = entries[at]
  const way = number(6)
  // From entries, for `__proto__` to be a key like any other.
  if (entry === undefined || way === 0) {
    return Object.fromEntries([...entries, [pick(KEYS, number), pick(VALUES, number)]])
  }
  if (way === 1) return Object.fromEntries(entries.toSpliced(at, 1))
  return Object.fromEntries(entries.with(at, [entry[0], changedValue(entry[1], number)]))
}

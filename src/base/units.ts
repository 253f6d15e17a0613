/**
 * Amounts as people write them in files and on the command line, and as tables print them. Strict: a unit is required,
 * letter case matters, and an amount that is no whole number of the smallest unit is refused.
 */

export interface Unit {
  /** Completes "expected …". */
  readonly expected: string
  /** The amount in the smallest unit, or `undefined` when the text is not of this form. */
  parse(text: string): number | undefined
  /** Short, for people; rounded to what fits a table. */
  format(amount: number): string
}

function scaled(text: string, scales: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d{1,15})(?:\.(\d{1,9}))?([A-Za-z]*)$/.exec(text)
  if (match === null) return undefined
  const [, whole = '', fraction = '', unit = ''] = match
  if (unit === '' && Number(whole) === 0 && fraction === '') return 0
  const scale = Object.hasOwn(scales, unit) ? scales[unit] : undefined
  if (scale === undefined) return undefined
  // In whole numbers throughout: 0.2 × 1000 is not exact in floating point.
  const amount = BigInt(whole + fraction) * BigInt(scale)
  const divisor = 10n ** BigInt(fraction.length)
  if (amount % divisor !== 0n) return undefined
  const exact = amount / divisor
  return exact <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(exact) : undefined
}

/** The largest scale that the amount reaches, with one decimal below ten. */
function shortened(amount: number, scales: readonly (readonly [string, number])[]): string {
  for (const [unit, scale] of scales) {
    if (amount < scale) continue
    const value = amount / scale
    const text = value < 10 ? value.toFixed(1).replace(/\.0$/, '') : String(Math.floor(value))
    return `${text}${unit}`
  }
  return String(amount)
}

const KIB = 1024
const BYTES = {
  B: 1,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: KIB,
  MiB: KIB ** 2,
  GiB: KIB ** 3,
  TiB: KIB ** 4
}

/** Bytes. */
export const byteUnit: Unit = {
  expected: 'a size such as 64MiB, 1GiB or 500MB',
  parse: (text) => scaled(text, BYTES),
  format: (amount) =>
    shortened(amount, [
      ['TiB', KIB ** 4],
      ['GiB', KIB ** 3],
      ['MiB', KIB ** 2],
      ['KiB', KIB],
      ['B', 1]
    ])
}

const RATES = { bps: 1, kbps: 1e3, Mbps: 1e6, Gbps: 1e9 }

/** Bits a second. */
export const rateUnit: Unit = {
  expected: 'a rate such as 500kbps, 1Mbps or 10Gbps',
  parse: (text) => scaled(text, RATES),
  format: (amount) =>
    shortened(amount, [
      ['Gbps', 1e9],
      ['Mbps', 1e6],
      ['kbps', 1e3],
      ['bps', 1]
    ])
}

/** Thousandths of a core; cores are written without a unit. */
export const cpuUnit: Unit = {
  expected: 'cores such as 1 or 0.2, or thousandths such as 200m',
  parse: (text) => scaled(text, { m: 1, '': 1000 }),
  format: (amount) => `${amount}m`
}

const DURATIONS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Milliseconds. */
export const durationUnit: Unit = {
  expected: 'a duration such as 90s, 10m, 1h or 7d',
  parse: (text) => scaled(text, DURATIONS),
  format: (amount) =>
    shortened(amount, [
      ['d', 86_400_000],
      ['h', 3_600_000],
      ['m', 60_000],
      ['s', 1000],
      ['ms', 1]
    ])
}

/** A plain number of things. */
export const countUnit: Unit = {
  expected: 'a whole number',
  parse: (text) => (/^\d{1,15}$/.test(text) ? Number(text) : undefined),
  format: String
}

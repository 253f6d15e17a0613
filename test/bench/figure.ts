/** What a benchmark gives: figures by name, each the median of its runs beside its target and the extremes. */

export interface Figure {
  readonly name: string
  readonly value: number
  readonly unit: string
  /** `null` where the figure only informs. */
  readonly target: number | null
  /** On which side of its target a good value is. */
  readonly direction: 'at most' | 'at least' | null
  readonly met: boolean | null
  readonly min: number
  readonly max: number
  readonly runs: number
}

export interface BenchContext {
  /** Aborted when the user has had enough. */
  readonly signal: AbortSignal
  /** Tells the terminal how far it is. */
  readonly progress: (message: string) => void
}

/** One benchmark. It clears up after itself whatever happens. */
export type Bench = (context: BenchContext) => Promise<readonly Figure[]>

/** Figures are rounded to three places, small ones to three digits: the rest is noise. */
export function figure(
  name: string,
  samples: readonly number[],
  init: { readonly unit: string; readonly atMost?: number; readonly atLeast?: number }
): Figure {
  const value = round(median(samples))
  const direction = init.atMost !== undefined ? 'at most' : init.atLeast !== undefined ? 'at least' : null
  const target = init.atMost ?? init.atLeast ?? null
  return {
    name,
    value,
    unit: init.unit,
    target,
    direction,
    met: target === null ? null : direction === 'at most' ? value <= target : value >= target,
    min: round(Math.min(...samples)),
    max: round(Math.max(...samples)),
    runs: samples.length
  }
}

export function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b)
  const middle = sorted.length / 2
  const lower = sorted[Math.ceil(middle) - 1]
  const upper = sorted[Math.floor(middle)]
  if (lower === undefined || upper === undefined) throw new TypeError('no runs, no median')
  return (lower + upper) / 2
}

function round(value: number): number {
  return Math.abs(value) < 0.1 ? Number(value.toPrecision(3)) : Math.round(value * 1000) / 1000
}

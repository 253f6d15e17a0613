/** The name that somebody probably meant: for "did you mean" in errors about what they wrote. */

const DISTANCE_MAX = 2

/** The nearest of `known` to `given`, or `undefined` when none is near. */
export function nearestName(given: string, known: readonly string[]): string | undefined {
  const folded = given.toLowerCase()
  let best: { readonly name: string; readonly distance: number } | undefined
  for (const name of known) {
    const distance = editDistance(folded, name.toLowerCase())
    if (distance <= Math.min(DISTANCE_MAX, name.length - 1) && distance < (best?.distance ?? Infinity)) {
      best = { name, distance }
    }
  }
  return best?.name
}

/** Levenshtein's, or more than `DISTANCE_MAX` when the lengths alone rule a near one out. */
function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > DISTANCE_MAX) return DISTANCE_MAX + 1
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}

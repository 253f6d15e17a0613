/** Half-open intervals of time `[notBefore, notAfter)` in UTC milliseconds (design §3). */

export interface Interval {
  readonly notBefore: number
  readonly notAfter: number
}

export function isWithin(inner: Interval, outer: Interval): boolean {
  return outer.notBefore <= inner.notBefore && inner.notAfter <= outer.notAfter
}

export function overlaps(a: Interval, b: Interval): boolean {
  return a.notBefore < b.notAfter && b.notBefore < a.notAfter
}

export function contains(interval: Interval, instant: number): boolean {
  return interval.notBefore <= instant && instant < interval.notAfter
}

/** Amounts in configuration files, as people write them. */
import * as v from 'valibot'
import type { Unit } from '../base/units.ts'

/** Gives the amount in the smallest unit. */
export function amount(unit: Unit) {
  return v.pipe(
    v.union([v.string(), v.number()], `expected ${unit.expected}`),
    v.transform((input) => unit.parse(String(input))),
    v.custom<number>((value) => value !== undefined, `expected ${unit.expected}`)
  )
}

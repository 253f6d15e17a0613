/**
 * Network coordinates (Vivaldi, SIGCOMM 2004): points whose distance estimates the round-trip time between two peers
 * that never met. In an advertisement they are integers: microseconds and permille. Pure.
 */
import * as v from 'valibot'

export const COORDINATE_DIMENSIONS = 4
/** A coordinate beyond a minute of round-trip time is no place on this planet. */
export const COORDINATE_MICROS_MAX = 60_000_000

const axis = v.pipe(
  v.number(),
  v.integer(),
  v.minValue(-COORDINATE_MICROS_MAX),
  v.maxValue(COORDINATE_MICROS_MAX)
)

export const coordinateSchema = v.strictObject({
  /** Microseconds along each axis. */
  vector: v.pipe(v.array(axis), v.length(COORDINATE_DIMENSIONS)),
  /** Microseconds that every path of this peer has in common: its access link. */
  height: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(COORDINATE_MICROS_MAX)),
  /** How far its own estimates are off, in permille; 1000 says that it knows nothing yet. */
  error: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2000))
})
export type Coordinate = v.InferOutput<typeof coordinateSchema>

/** The round-trip time between two peers in microseconds, estimated. */
export function estimatedRttMicros(one: Coordinate, other: Coordinate): number {
  const squares = one.vector.map((at, axis) => (at - (other.vector[axis] ?? 0)) ** 2)
  return Math.sqrt(squares.reduce((sum, square) => sum + square, 0)) + one.height + other.height
}

const KNOWS_NOTHING = 1000

/** Whether its owner knows anything of where it is. */
export function isPlaced({ error }: Coordinate): boolean {
  return error < KNOWS_NOTHING
}

/** The same in milliseconds, for whoever chooses by it; `undefined` unless both are known and placed. */
export function estimatedRttMs(
  one: Coordinate | undefined,
  other: Coordinate | undefined
): number | undefined {
  if (one === undefined || other === undefined || !isPlaced(one) || !isPlaced(other)) return undefined
  return Math.round(estimatedRttMicros(one, other)) / 1000
}

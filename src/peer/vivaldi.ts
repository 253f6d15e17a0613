/**
 * Vivaldi (Dabek et al., SIGCOMM 2004) with height vectors and the corrections that made it work in practice (Ledlie et
 * al., NSDI 2007; HashiCorp's Serf): each measured round-trip time pulls or pushes an own point a little, as a spring
 * would. What a liar says or delays moves it by little, as long as most others are honest. Pure.
 */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { fraction, type Random } from '../base/random.ts'
import {
  COORDINATE_DIMENSIONS,
  COORDINATE_MICROS_MAX,
  coordinateSchema,
  type Coordinate
} from '../ticket/coordinate.ts'
import type { Principal } from '../ticket/principal.ts'

/** What one sample changes of the point and of the error, at most: Vivaldi's c_c and c_e. */
const POINT_GAIN = 0.25
const ERROR_GAIN = 0.25
/** Says that it knows nothing; no estimate counts as worse. */
const ERROR_MAX = 1
const ERROR_MIN = 0.001
/** Who claims to be better than this is believed to be as good as this: an error of 0 would take all the weight. */
const BELIEVED_ERROR_MIN = 0.05
/** Heights grow by factors, so they never come down to nothing. */
const HEIGHT_MICROS_FIRST = 1000
const HEIGHT_MICROS_MIN = 10
/** The median of so many round-trip times of a peer is used: a single delay is no distance. */
const FILTER_SAMPLES = 3
/** A round-trip time beyond this is no distance but a fault. */
const RTT_MICROS_MAX = 10_000_000
/** A height is part of every path: one that is longer than a path by more than this is a lie. */
const HEIGHT_SLACK_MICROS = 5000
/** Points nearer than this have no direction. */
const NEAR_MICROS = 1
/** Centring draws back what is far out by the square of how far, so weakly that it is not felt where peers are. */
const GRAVITY_SECONDS = 150
/**
 * A sample that is off by more than so many medians of what others are off by counts for less the more it is off; by
 * these times every sample may be off, and no sample by more.
 */
const PLAUSIBLE_MEDIANS = 3
const PLAUSIBLE_MICROS_MIN = 500
const PLAUSIBLE_MICROS_MAX = 50_000

/** What is known of one other peer. */
interface Neighbour {
  /** Its last round-trip times. */
  readonly rtts: readonly number[]
  /** By how much the estimate was off the last time. */
  readonly off: number
}

export interface VivaldiInit {
  /** Where it was before. */
  readonly from?: Coordinate
  /** Leaves out what bounds the effect of liars, so that it can be shown to do so. */
  readonly without?: 'bounds'
}

export class Vivaldi {
  readonly #random: Random
  readonly #bounded: boolean
  /** By peer, the one measured last at the end. */
  readonly #neighbours = new Map<Principal, Neighbour>()
  #vector: readonly number[] = ORIGIN
  #height = HEIGHT_MICROS_FIRST
  #error = ERROR_MAX

  constructor(components: { readonly random: Random }, init: VivaldiInit = {}) {
    this.#random = components.random
    this.#bounded = init.without !== 'bounds'
    if (init.from === undefined) return
    this.#vector = init.from.vector
    this.#height = Math.max(HEIGHT_MICROS_MIN, init.from.height)
    this.#error = clamp(init.from.error / 1000, ERROR_MIN, ERROR_MAX)
  }

  coordinate(): Coordinate {
    return {
      vector: this.#vector.map((at) => Math.round(at)),
      height: Math.round(this.#height),
      error: Math.round(this.#error * 1000)
    }
  }

  /** Takes in how far `peer` is, which says that it is at `other`. False when that cannot be, and nothing is changed. */
  observe(peer: Principal, other: Coordinate, rttMicros: number): boolean {
    if (!v.is(coordinateSchema, other) || !(rttMicros > 0 && rttMicros <= RTT_MICROS_MAX)) return false
    const rtts = [...(this.#neighbours.get(peer)?.rtts ?? []), rttMicros].slice(-FILTER_SAMPLES)
    const rtt = median(rtts)
    if (this.#bounded && other.height > rtt + HEIGHT_SLACK_MICROS) return false
    const there = this.#bounded ? believed(other, rtt) : other
    const off = rtt - this.#distance(there)
    this.#remember(peer, { rtts, off: Math.abs(off) })
    const residual = this.#bounded ? this.#plausible(off) : off
    const weight = this.#error / (this.#error + there.error / 1000)
    const gain = ERROR_GAIN * weight
    this.#error = clamp((Math.abs(residual) / rtt) * gain + this.#error * (1 - gain), ERROR_MIN, ERROR_MAX)
    this.#push(there, POINT_GAIN * weight * residual)
    if (this.#bounded) this.#height = Math.min(this.#height, Math.max(rtt, HEIGHT_MICROS_MIN))
    this.#centre()
    return true
  }

  #distance(there: Coordinate): number {
    return length(difference(this.#vector, there.vector)) + this.#height + there.height
  }

  #remember(peer: Principal, neighbour: Neighbour): void {
    this.#neighbours.delete(peer)
    this.#neighbours.set(peer, neighbour)
    if (this.#neighbours.size <= LIMITS.neighboursMax) return
    const [oldest] = this.#neighbours.keys()
    if (oldest !== undefined) this.#neighbours.delete(oldest)
  }

  /** What to make of a sample that is off by so much, judged by how much others are: most peers are honest. */
  #plausible(off: number): number {
    const usual = median([...this.#neighbours.values()].map((neighbour) => neighbour.off))
    const most = clamp(PLAUSIBLE_MEDIANS * usual, PLAUSIBLE_MICROS_MIN, PLAUSIBLE_MICROS_MAX)
    return Math.abs(off) <= most ? off : most ** 2 / off
  }

  /** Moves away from a point, or towards it where `force` is negative. */
  #push(from: Coordinate, force: number): void {
    const away = difference(this.#vector, from.vector)
    const apart = length(away)
    const direction = apart > NEAR_MICROS ? away.map((at) => at / apart) : this.#anyDirection()
    this.#vector = this.#vector.map((at, axis) =>
      clamp(at + force * (direction[axis] ?? 0), -COORDINATE_MICROS_MAX, COORDINATE_MICROS_MAX)
    )
    if (apart <= NEAR_MICROS) return
    const height = this.#height + (force * (this.#height + from.height)) / apart
    this.#height = clamp(height, HEIGHT_MICROS_MIN, COORDINATE_MICROS_MAX)
  }

  #centre(): void {
    const out = length(this.#vector)
    const force = 1e6 * (out / 1e6 / GRAVITY_SECONDS) ** 2
    if (out > NEAR_MICROS) this.#vector = this.#vector.map((at) => at * (1 - Math.min(1, force / out)))
  }

  #anyDirection(): readonly number[] {
    const any = ORIGIN.map(() => fraction(this.#random) - 0.5)
    const size = length(any)
    return size > 0 ? any.map((at) => at / size) : ORIGIN.map((_zero, axis) => (axis === 0 ? 1 : 0))
  }
}

const ORIGIN: readonly number[] = Array.from({ length: COORDINATE_DIMENSIONS }, () => 0)

function believed(other: Coordinate, rtt: number): Coordinate {
  return {
    vector: other.vector,
    height: Math.min(other.height, rtt),
    error: Math.max(other.error, BELIEVED_ERROR_MIN * 1000)
  }
}

function difference(one: readonly number[], other: readonly number[]): number[] {
  return one.map((at, axis) => at - (other[axis] ?? 0))
}

function length(vector: readonly number[]): number {
  return Math.hypot(...vector)
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, value))
}

/** The lower one of an even number. */
function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other)
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0
}

/**
 * The pure part of shaping: what rates, quanta and queues a vserver's classes have, from its lease and the node's policy.
 * Rates are bits a second.
 */
import type { Resources } from '../../ticket/resources.ts'

/** What a vserver may send at most of each kind of packet that raises alarms elsewhere, and of new destinations a minute. */
export interface ShapingPolicy {
  readonly icmpBps: number
  /** Packets with IP options. */
  readonly optionsBps: number
  /** First packets to destinations that the vserver has not talked to for an hour. */
  readonly newDestinationsBps: number
  readonly destinationsPerMinute: number
}

export const DEFAULT_SHAPING: ShapingPolicy = {
  icmpBps: 128_000,
  optionsBps: 128_000,
  newDestinationsBps: 128_000,
  destinationsPerMinute: 600
}

/** HTB knows no rate of zero; what has no guarantee gets this much. */
export const RATE_BPS_MIN = 8000
/** The least cap of a vserver, which none is narrowed below: whoever holds it can still log in. */
export const CAP_BPS_MIN = 2 * RATE_BPS_MIN
/** What each bucket for packets that raise alarms is guaranteed of its vserver's rate. */
export const CAUTION_BPS_MIN = 2000

/** Bytes that a class may send before the next one's turn; HTB does well between these. */
const QUANTUM_BYTES = { min: 1514, usual: 6056, max: 60_560 } as const
/** The part of the root that the usual quantum is the share of. */
const USUAL_PART = 0.01

/** A leaf's queue: 100 ms at its cap, and room for two of the largest packets that offloading makes. */
const QUEUE_BYTES_MIN = 128 * 1024
const QUEUE_SECONDS = 0.1
/** A second's worth of what is bounded, so that echoes are lost rather than late. */
const CAUTION_QUEUE_BYTES = { min: 4 * 1024, max: 64 * 1024 } as const

export interface VserverRates {
  readonly rateBps: number
  readonly capBps: number
  /** Its share of what nobody is guaranteed or uses. */
  readonly quantumBytes: number
}

/** `narrowedBps`: a cap that holds for now, instead of the lease's where it is lower. */
export function vserverRates(
  rootBps: number,
  { egressBps, egressBpsMax }: Pick<Resources, 'egressBps' | 'egressBpsMax'>,
  narrowedBps = Number.POSITIVE_INFINITY
): VserverRates {
  const root = Math.max(rootBps, RATE_BPS_MIN)
  const wanted = egressBpsMax > 0 ? egressBpsMax : root
  const capBps = clamp(Math.min(Math.max(wanted, egressBps), narrowedBps), CAP_BPS_MIN, root)
  const rateBps = clamp(egressBps, CAP_BPS_MIN, capBps)
  return { rateBps, capBps, quantumBytes: quantumOf(egressBps, root) }
}

/**
 * In proportion to the guarantee, as the processor's weight is: a hundredth of the root is the usual quantum. Guarantees
 * below a four-hundredth and above a tenth of the root count as those.
 */
export function quantumOf(guaranteeBps: number, rootBps: number): number {
  const proportional = Math.round((guaranteeBps / (rootBps * USUAL_PART)) * QUANTUM_BYTES.usual)
  return clamp(proportional, QUANTUM_BYTES.min, QUANTUM_BYTES.max)
}

/** Of a bucket for packets that raise alarms: small, so that what is in it adds nothing to the vserver's share. */
export const CAUTION_QUANTUM_BYTES = QUANTUM_BYTES.min

export function dataQueueBytes(capBps: number): number {
  return Math.max(QUEUE_BYTES_MIN, bytesIn(QUEUE_SECONDS, capBps))
}

export function cautionQueueBytes(capBps: number): number {
  return clamp(bytesIn(1, capBps), CAUTION_QUEUE_BYTES.min, CAUTION_QUEUE_BYTES.max)
}

export function bytesIn(seconds: number, bps: number): number {
  return Math.floor((bps / 8) * seconds)
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(Math.max(value, least), Math.max(most, least))
}

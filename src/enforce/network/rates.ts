/**
 * The pure part of shaping: what rates, quanta and queues a vserver's classes have, from its lease and the node's policy.
 * Rates are bits a second.
 */
import type { Resources } from '../../ticket/resources.ts'
import { EGRESS_SHARE, SHAPING_BPS_MIN, type Shaping } from '../../ticket/shaping.ts'

/** What a vserver may send at most of each kind of packet that raises alarms elsewhere, and of new destinations a minute. */
export interface ShapingPolicy {
  readonly icmpBps: number
  /** Packets with IP options. */
  readonly optionsBps: number
  /** First packets to destinations that the vserver has not talked to for an hour. */
  readonly newDestinationsBps: number
  readonly destinationsPerMinute: number
  /** The largest share of what is left that a vserver may have, whatever its lease says. */
  readonly egressShareMax: number
}

export const DEFAULT_SHAPING: ShapingPolicy = {
  icmpBps: 128_000,
  optionsBps: 128_000,
  newDestinationsBps: 128_000,
  destinationsPerMinute: 600,
  egressShareMax: EGRESS_SHARE.usual
}

/** HTB knows no rate of zero; what has no guarantee gets this much. */
export const RATE_BPS_MIN = SHAPING_BPS_MIN
/** The least cap of a vserver, which none is narrowed below: whoever holds it can still log in. */
export const CAP_BPS_MIN = 2 * RATE_BPS_MIN
/** What each bucket for packets that raise alarms is guaranteed of its vserver's rate. */
export const CAUTION_BPS_MIN = 2000

/** Bytes that a class may send before the next one's turn, for each share: four of the largest frames. */
const QUANTUM_BYTES_PER_SHARE = 4 * 1514

/** A leaf's queue: 100 ms at its cap, and room for two of the largest packets that offloading makes. */
const QUEUE_BYTES_MIN = 128 * 1024
const QUEUE_SECONDS = 0.1
/** A second's worth of what is bounded, so that echoes are lost rather than late. */
const CAUTION_QUEUE_BYTES = { min: 4 * 1024, max: 64 * 1024 } as const

export interface VserverRates {
  readonly rateBps: number
  readonly capBps: number
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
  return { rateBps, capBps }
}

/** What a vserver is held to: what its lease says, within the node's policy. */
export function shapingOf(policy: ShapingPolicy, shaping: Shaping = {}): Required<Shaping> {
  const { icmpBps, optionsBps, newDestinationsBps, destinationsPerMinute, egressShareMax } = policy
  const least = (allowed: number, asked: number | undefined): number => Math.min(allowed, asked ?? allowed)
  return {
    icmpBps: least(icmpBps, shaping.icmpBps),
    optionsBps: least(optionsBps, shaping.optionsBps),
    newDestinationsBps: least(newDestinationsBps, shaping.newDestinationsBps),
    destinationsPerMinute: least(destinationsPerMinute, shaping.destinationsPerMinute),
    egressShare: Math.min(egressShareMax, shaping.egressShare ?? EGRESS_SHARE.usual)
  }
}

/** What nobody is guaranteed or uses is shared in proportion to these, whatever is guaranteed. */
export function quantumOf(egressShare: number): number {
  return egressShare * QUANTUM_BYTES_PER_SHARE
}

/** Of a bucket for packets that raise alarms: small, so that what is in it adds nothing to the vserver's share. */
export const CAUTION_QUANTUM_BYTES = 1514

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

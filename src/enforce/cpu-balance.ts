/**
 * Decides whose cap on the processor is narrowed for a while, so that a vserver gets what it is guaranteed where the kernel's
 * weights alone do not give it: Linux 6.18 lets a fork bomb starve a neighbour of the same weight altogether. Pure.
 */

/** All in thousandths of a core. */
export interface CpuShare {
  readonly id: string
  readonly guarantee: number
  readonly cap: number
  /** Over the time since the last look. */
  readonly used: number
  /** What its processes could use that stood ready to run at each of the last looks. */
  readonly wanted: number
}

export interface CpuLook {
  /** Milliseconds by a monotonic clock. */
  readonly now: number
  /** Thousandths of a core that nobody used since the last look. */
  readonly idle: number
  readonly shares: readonly CpuShare[]
}

/** Shorter of its guarantee by less than this is the noise of scheduling. */
const MISSED_SHARE_MIN = 0.03
const MISSED_MIN = 20
/** More than so many thousandths of a core idle, and nobody waits for what others take. */
export const IDLE_MIN = 50
/** Takers give back what is missed and a quarter more, so that it is there at the next look. */
const HASTE = 1.25
/** What they get again at a look. */
const STEP_SHARE = 0.1
const HOLD_MS = 4000
const HOLD_MS_MAX = 64_000

export class CpuBalance {
  readonly #narrowed = new Map<string, number>()
  #holdMs = HOLD_MS
  #heldUntil = 0
  #widening = false

  /** Caps that are narrower than leased, by id; the same map until the next look. */
  get narrowed(): ReadonlyMap<string, number> {
    return this.#narrowed
  }

  look({ now, idle, shares }: CpuLook): void {
    const present = new Set(shares.map(({ id }) => id))
    for (const id of this.#narrowed.keys()) if (!present.has(id)) this.#narrowed.delete(id)
    const missed = idle > IDLE_MIN ? 0 : shares.reduce((sum, share) => sum + missedBy(share), 0)
    if (missed > 0) this.#narrow(shares, missed, now)
    else if (idle > IDLE_MIN) this.#widen(shares, idle)
    else if (now >= this.#heldUntil) this.#widen(shares, 0)
    if (now > this.#heldUntil + HOLD_MS_MAX) this.#holdMs = HOLD_MS
  }

  #narrow(shares: readonly CpuShare[], missed: number, now: number): void {
    // Who takes too much as soon as it is let is held longer each time.
    if (this.#widening) this.#holdMs = Math.min(2 * this.#holdMs, HOLD_MS_MAX)
    this.#widening = false
    const takers = shares.filter(({ used, guarantee }) => used > guarantee)
    const excess = takers.reduce((sum, { used, guarantee }) => sum + used - guarantee, 0)
    if (excess < MISSED_MIN) return
    this.#heldUntil = now + this.#holdMs
    const part = Math.min(1, (HASTE * missed) / excess)
    for (const { id, used, guarantee } of takers) {
      const before = this.#narrowed.get(id) ?? Number.POSITIVE_INFINITY
      this.#narrowed.set(id, Math.min(before, Math.round(used - part * (used - guarantee))))
    }
  }

  #widen(shares: readonly CpuShare[], idle: number): void {
    for (const { id, guarantee, cap } of shares) {
      const narrowed = this.#narrowed.get(id)
      if (narrowed === undefined) continue
      this.#widening = true
      const wider = narrowed + Math.max(idle, STEP_SHARE * (cap - guarantee), 1)
      if (wider >= cap) this.#narrowed.delete(id)
      else this.#narrowed.set(id, Math.round(wider))
    }
  }
}

/** What a vserver lacks of its guarantee, as far as it would use it. */
function missedBy({ guarantee, used, wanted }: CpuShare): number {
  const missed = Math.min(guarantee, wanted) - used
  return missed > Math.max(MISSED_MIN, MISSED_SHARE_MIN * guarantee) ? missed : 0
}

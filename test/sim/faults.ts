/** The faults of a simulation: which kinds a seed has, how often each strikes, and how often it did. */
import type { Chance } from './chance.ts'

/** Each kind with the most strikes among a thousand occasions. What an occasion is, the kind says. */
const MOST = {
  /** Of a message: it does not arrive. */
  'drop-request': 60,
  'drop-reply': 60,
  /** It arrives seconds later, or minutes. */
  delay: 80,
  /** A request arrives twice. */
  duplicate: 80,
  /** One arrives before another that was sent earlier; comes of different delays. */
  reorder: 0,
  /** Of a few seconds: the hosts are cut into groups that do not hear each other. */
  partition: 120,
  /** A host's clock is set. */
  'clock-jump': 120,
  /** A process dies. */
  crash: 200,
  /** A machine dies, and all virtual machines on it. */
  reboot: 60,
  /** Of a commit: the process dies before it is kept, or after it and before anybody hears of it. */
  'crash-before-durable': 12,
  'crash-after-durable': 12,
  /** Of reading a table at start. */
  'crash-while-reading': 30,
  /** Of a commit: the disk fails, and whether it was kept is not known. */
  'store-failure': 4,
  /** Of a call to the monitor of virtual machines: it fails. */
  'monitor-failure': 60
} as const

export type FaultKind = keyof typeof MOST
export const FAULT_KINDS = Object.keys(MOST) as FaultKind[]
export type FaultCounts = Readonly<Record<FaultKind, number>>

export class Faults {
  readonly #chance: Chance
  readonly #permille: Record<FaultKind, number>
  readonly #counts = Object.fromEntries(FAULT_KINDS.map((kind) => [kind, 0])) as Record<FaultKind, number>
  #isOver = false

  /** A seed has about two thirds of the kinds, so that each is seen with and without the others. */
  constructor(chance: Chance) {
    this.#chance = chance
    this.#permille = Object.fromEntries(
      FAULT_KINDS.map((kind) => [kind, chance.happens(670) ? chance.between(0, MOST[kind]) : 0])
    ) as Record<FaultKind, number>
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** From now on nothing goes wrong. */
  end(): void {
    this.#isOver = true
  }

  /** Whether a fault of this kind strikes on this occasion; counts it. */
  strikes(kind: FaultKind): boolean {
    if (this.#isOver || !this.#chance.happens(this.#permille[kind])) return false
    this.count(kind)
    return true
  }

  count(kind: FaultKind): void {
    this.#counts[kind] += 1
  }

  get counts(): FaultCounts {
    return this.#counts
  }
}

/** What all parts of one simulation share. */
import type { Chance } from './chance.ts'
import type { Faults } from './faults.ts'
import type { Scheduler } from './scheduler.ts'
import type { Trace } from './trace.ts'

export interface World {
  readonly scheduler: Scheduler
  readonly chance: Chance
  readonly faults: Faults
  readonly trace: Trace
  /** Reports what must never be. */
  readonly violated: (invariant: string, message: string) => void
}

/** UTC ms at which every simulation begins. */
export const BEGINNING = Date.UTC(2026, 0, 1)

export function note({ scheduler, trace }: World, where: string, what: string): void {
  trace.add(scheduler.now, where, what)
}

/** Which number the next link has: one that no link has, and for which nobody else made a device. */
import { LIMITS } from '../../base/limits.ts'
import { nextIndex, planLink } from './address-plan.ts'
import type { LinkRecord } from './link-records.ts'
import { isPresent } from './uplink.ts'

export class LinkNumbers {
  readonly #records: () => Iterable<LinkRecord>
  #last = 0

  constructor(records: () => Iterable<LinkRecord>) {
    this.#records = records
  }

  /** As if `last` had been taken. */
  goOnFrom(last: number): void {
    this.#last = last
  }

  /** Passes over numbers whose devices somebody else made. */
  async passStrangers(): Promise<void> {
    for (let passed = 0; passed < LIMITS.linksPerNodeMax; passed++) {
      const next = this.#next()
      if (!(await isPresent(planLink(next).device))) return
      this.#last = next
    }
  }

  /** Throws `BUSY` when all are used. */
  take(): number {
    return (this.#last = this.#next())
  }

  #next(): number {
    return nextIndex(this.#last, new Set([...this.#records()].map(({ index }) => index)))
  }
}

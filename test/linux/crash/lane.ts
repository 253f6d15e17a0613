/** Kills one node again and again, at labelled points or whenever, and gathers what was wrong after each restart. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Numbers } from '../../base/seeded-numbers.ts'
import { Ledger } from './ledger.ts'
import type { Fault, NodeLives } from './lives.ts'
import type { CrashOverlay } from './overlay.ts'
import { BEFORE_RECOVERY, RECEIVED, type Point } from './points.ts'

/** Longer than a test. */
export const LONG_MS = 3_600_000
/** The first is enough for a lease to be made before its end, unless the machine is busy. */
const SHORT_MS = [1_500, 3_000, 6_000] as const
const STANDING = { least: 2, most: 4 } as const
/** As long as operations at once take on a machine with time to spare. */
const OPERATIONS_MS = 500
const SPARE_TRIES_MAX = 200
const SPARE_POLL_MS = 50
/** As long as a start takes. */
const START_MS = 1_200

export class Lane {
  readonly node: NodeLives
  readonly ledger: Ledger
  /** What was wrong, with what had happened before. */
  readonly faults: string[] = []
  kills = 0
  #before = 'nothing had happened'

  constructor(overlay: CrashOverlay, node: NodeLives) {
    this.node = node
    this.ledger = new Ledger(overlay, node)
  }

  /** Starts the node and looks after it. */
  async revive(fault: Fault = 'none'): Promise<void> {
    const { spares: before } = await this.node.see()
    await this.node.start(fault)
    const { spares } = await this.node.see()
    const left = before
      .filter((container) => spares.includes(container))
      .map((each) => `orphan spare ${each}`)
    const found = [...left, ...(await this.ledger.faults())]
    this.faults.push(...found.map((fault) => `after ${this.#before}: ${fault}`))
  }

  fail(error: unknown): void {
    this.faults.push(`after ${this.#before}: ${error instanceof Error ? error.stack : String(error)}`)
  }

  /** One life, from its start to its death at the point. */
  async killAt(point: Point): Promise<void> {
    await this.node.keepSpares(point.operation === 'claim' ? 1 : 0)
    await this.revive()
    await this.#stand()
    if (point.operation === 'claim') await this.#awaitSpare()
    if (point.operation === 'recover') await this.#killTwice(point)
    else await this.#killDoing(point)
    this.#died(point.name)
  }

  async #killDoing(point: Point): Promise<void> {
    const armed = point.moment === RECEIVED ? undefined : await this.node.arm(point.moment)
    const acknowledged = await this.#drive(point)
    if (armed === undefined) {
      if (!acknowledged) this.faults.push(`${point.name}: no reply came`)
      await this.node.process.kill()
    } else {
      const moment = await armed.death
      if (moment !== point.moment) this.faults.push(`${point.name}: died at ${moment}`)
    }
  }

  /** Twice: with a vserver half made, and at a point of the start after that. */
  async #killTwice({ name, moment }: Point): Promise<void> {
    const making = await this.node.arm(BEFORE_RECOVERY)
    await this.ledger.acquire(LONG_MS)
    const deaths = [await making.death]
    this.node.spawn()
    const recovering = await this.node.arm(moment)
    deaths.push(await recovering.death)
    if (deaths.join() !== [BEFORE_RECOVERY, moment].join()) {
      this.faults.push(`${name}: died at ${deaths.join(' and ')}`)
    }
  }

  /** One life in which several things are done at once, killed in their midst or before it was ready. */
  async killWhenever(number: Numbers): Promise<void> {
    await this.node.keepSpares(1)
    if (number(8) === 0) {
      const process = this.node.spawn()
      const wait = number(START_MS)
      await delay(wait)
      await process.kill()
      this.#died(`a kill ${wait} ms into a start`)
    }
    await this.revive()
    await this.#stand()
    const [first, second, third] = this.ledger.standing()
    const work: Promise<unknown>[] = [
      this.ledger.acquire(LONG_MS),
      this.ledger.acquire(number(2) === 0 ? LONG_MS : 1_000 + number(2_000))
    ]
    if (first !== undefined) work.push(this.ledger.end(first))
    if (second !== undefined) work.push(this.ledger.renew(second))
    if (third !== undefined && number(2) === 0) work.push(this.ledger.end(third))
    const wait = number(OPERATIONS_MS)
    await delay(wait)
    await this.node.process.kill()
    await Promise.all(work)
    this.#died(`a kill ${wait} ms into several operations`)
  }

  /** So many leases as stand in all lives, none of them about to end. */
  async #stand(): Promise<void> {
    const standing = this.ledger.standing()
    for (let count = standing.length; count < STANDING.least; count++) await this.ledger.acquire(LONG_MS)
    for (const claim of standing.slice(STANDING.most)) await this.ledger.end(claim)
  }

  /** One is made ahead after a vserver that is made for somebody. */
  async #awaitSpare(): Promise<void> {
    await this.ledger.acquire(LONG_MS)
    for (let tries = 0; tries < SPARE_TRIES_MAX; tries++) {
      if ((await this.node.see()).spares.length > 0) return
      await delay(SPARE_POLL_MS)
    }
    throw new Error('no vserver was made ahead')
  }

  async #drive({ operation }: Point): Promise<boolean> {
    if (operation === 'redeem' || operation === 'claim') return this.ledger.acquire(LONG_MS)
    if (operation === 'expire') {
      for (const term of SHORT_MS) if (await this.ledger.acquire(term)) return true
      return false
    }
    const [claim] = this.ledger.standing()
    if (claim === undefined) throw new TypeError('a lease stands')
    return operation === 'renew' ? this.ledger.renew(claim) : this.ledger.end(claim)
  }

  #died(how: string): void {
    this.kills++
    this.#before = `${how} (kill ${this.kills})`
  }
}

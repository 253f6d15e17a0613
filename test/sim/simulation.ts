/**
 * One deterministic simulation (after TigerBeetle's VOPR): nodes, agents, brokers and holders, all of them the real
 * ones, over simulated clocks, disks, machines and a network that go wrong as the seed has it. The same seed gives the
 * same trace. Once faults are over, everything must come right.
 */
import { revoke } from './agent-actor.ts'
import { Chance } from './chance.ts'
import { deleteAll, heldBack, leftovers, stuckSlices } from './convergence.ts'
import { Faults, type FaultCounts } from './faults.ts'
import type { Flaw } from './flaws.ts'
import { Demands, act } from './holder-actor.ts'
import { checkFraud } from './fraud-invariants.ts'
import { Host, letGo, type Process } from './host.ts'
import { Invariants } from './invariants.ts'
import { forgetOpened, openOnce } from './opened-once.ts'
import { hostsOf, type Overlay } from './overlay.ts'
import { Scheduler } from './scheduler.ts'
import { makeOverlay } from './setting.ts'
import { Trace } from './trace.ts'
import { note, type World } from './world.ts'

export interface Violation {
  /** Virtual ms since the simulation began. */
  readonly time: number
  readonly invariant: string
  readonly message: string
}

export interface Outcome {
  readonly seed: number
  /** SHA-256 of the trace, in hex. */
  readonly hash: string
  readonly violations: readonly Violation[]
  readonly faults: FaultCounts
  /** What the holders set out to do, and the leases that were given out. */
  readonly operations: number
  readonly leases: number
  /** Agents that were proven to cheat. */
  readonly cheatsProven: number
}

export interface SimulationInit {
  /** Gets the trace line by line. */
  readonly write?: (line: string) => void
  /** A mechanism to do without. */
  readonly flaw?: Flaw
}

/** Ms of virtual time: how long things go wrong, how often a holder does something, how long all may take to come right. */
const STORMY_MS = 220_000
const OPERATION_MS = 1000
const QUIET_MS = 1_200_000
const STEP_MS = 5000
const VIOLATIONS_MAX = 5

export async function simulate(seed: number, init: SimulationInit = {}): Promise<Outcome> {
  openOnce()
  try {
    return await new Simulation(seed, init).run()
  } finally {
    forgetOpened()
  }
}

class Simulation {
  readonly #seed: number
  readonly #world: World
  readonly #overlay: Overlay
  readonly #invariants: Invariants
  readonly #demands = new Demands()
  readonly #violations: Violation[] = []
  #operations = 0

  constructor(seed: number, { write, flaw }: SimulationInit) {
    const scheduler = new Scheduler()
    const chance = new Chance(seed)
    this.#seed = seed
    this.#world = {
      scheduler,
      chance,
      faults: new Faults(chance),
      trace: new Trace(write),
      violated: (invariant, message) => {
        note(this.#world, 'VIOLATED', `${invariant}: ${message}`)
        this.#violations.push({ time: scheduler.now, invariant, message })
      }
    }
    this.#overlay = makeOverlay(this.#world, flaw)
    this.#invariants = new Invariants(this.#overlay)
    this.#overlay.observer.addWitness(this.#invariants)
    this.#overlay.observer.addWitness(this.#demands)
  }

  async run(): Promise<Outcome> {
    const { scheduler, faults, trace } = this.#world
    for (const host of hostsOf(this.#overlay)) host.start()
    this.#every(1000, () => this.#invariants.checkRunning())
    this.#keepActing()
    this.#every(2000, () => this.#goWrong())
    await this.#runUntil(STORMY_MS)
    this.#comeRight()
    const end = scheduler.now + QUIET_MS
    await this.#converge(end)
    const cheatsProven = checkFraud(this.#overlay)
    const hash = trace.end()
    for (const host of hostsOf(this.#overlay)) letGo(host)
    return {
      seed: this.#seed,
      hash,
      violations: this.#violations,
      faults: faults.counts,
      operations: this.#operations,
      leases: this.#invariants.leases,
      cheatsProven
    }
  }

  /** Checks after each step; a simulation in which much is broken is broken off. */
  async #runUntil(time: number): Promise<void> {
    await this.#world.scheduler.runUntil(time, () => {
      this.#invariants.check()
      return this.#violations.length >= VIOLATIONS_MAX
    })
  }

  #every(ms: number, work: () => void): void {
    this.#world.scheduler.after(ms, () => {
      work()
      this.#every(ms, work)
    })
  }

  #keepActing(): void {
    const { scheduler, chance, faults } = this.#world
    if (faults.isOver) return
    this.#operations += 1
    act(this.#overlay, chance.pick(this.#overlay.holders), this.#demands)
    if (chance.happens(30)) revoke(this.#overlay, chance.pick(this.#overlay.agents))
    scheduler.after(chance.between(1, 2 * OPERATION_MS), () => this.#keepActing())
  }

  /** What goes wrong with hosts and the network as a whole. */
  #goWrong(): void {
    const { scheduler, chance, faults } = this.#world
    const { network, nodes } = this.#overlay
    const hosts = hostsOf(this.#overlay)
    if (faults.strikes('partition')) {
      network.cut()
      scheduler.after(chance.between(500, 20_000), () => network.mend())
    }
    if (faults.strikes('clock-jump')) this.#setClock(chance.pick(hosts))
    if (faults.strikes('crash')) chance.pick(hosts).crash('killed')
    if (faults.strikes('reboot')) {
      const { host, machine } = chance.pick(nodes)
      host.crash('its machine died')
      machine.vservers.clear()
    }
  }

  #setClock(host: Host): void {
    const { chance } = this.#world
    this.#invariants.passTime()
    const far = chance.happens(150) ? 600_000 : 40_000
    host.setClock(chance.between(-far, far))
    this.#invariants.passTime()
  }

  /** From here on nothing goes wrong, and what went wrong is put right. */
  #comeRight(): void {
    const { faults } = this.#world
    note(this.#world, 'world', 'faults are over')
    faults.end()
    this.#overlay.network.mend()
    this.#invariants.passTime()
    for (const host of hostsOf(this.#overlay)) host.setClock(host.skewMs % 20_000)
    this.#invariants.passTime()
  }

  async #converge(end: number): Promise<void> {
    const { scheduler } = this.#world
    // Messages under way come in, everybody is up again, what was begun is brought to an end.
    await this.#runUntil(scheduler.now + 60_000)
    await this.#until(end, 'no slice is stuck', () => stuckSlices(this.#overlay))
    await this.#until(end, 'slices can be deleted', () => deleteAll(this.#overlay))
    await this.#until(end, 'nothing is left', async () => leftovers(this.#overlay))
    const probe = await this.#probe()
    await this.#until(end, 'agents have all to grant again', () => heldBack(this.#overlay, probe))
  }

  /** Asks again and again until nothing is found. */
  async #until(end: number, invariant: string, find: () => Promise<string[]>): Promise<void> {
    const { scheduler } = this.#world
    for (;;) {
      if (this.#violations.length > 0) return
      let found: readonly string[] = ['no answer']
      find().then(
        (answer) => (found = answer),
        (error: unknown) => (found = [String(error)])
      )
      await this.#runUntil(scheduler.now + STEP_MS)
      if (found.length === 0) return
      if (scheduler.now >= end) return this.#world.violated(invariant, found.slice(0, 3).join('; '))
    }
  }

  /** A host of nobody's, to ask from. */
  async #probe(): Promise<Process> {
    const host = new Host(this.#world, { name: 'probe', program: async () => {} })
    this.#overlay.network.add(host)
    host.start()
    await this.#runUntil(this.#world.scheduler.now + 1)
    if (host.process === undefined) throw new TypeError('the probe is up')
    return host.process
  }
}

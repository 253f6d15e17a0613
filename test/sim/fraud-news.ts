/**
 * What the hosts find out about fraud by themselves: each process watches what passes through it, tells the nodes of
 * what it finds, and forgets it when it dies.
 */
import { openAnyObject, type AnyObject } from '../../src/ticket/any-object.ts'
import { FraudWatch } from '../../src/ticket/fraud-watch.ts'
import type { Finding } from '../../src/ticket/fraud.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import type { Host, Process } from './host.ts'
import type { Network } from './network.ts'
import { note, type World } from './world.ts'

interface Known {
  readonly watch: FraudWatch
  readonly proven: Set<Principal>
}

export class FraudNews {
  readonly #world: World
  readonly #network: Network
  readonly #cheats = new Set<Principal>()
  readonly #listeners: Host[] = []
  readonly #known = new WeakMap<Process, Known>()

  constructor(world: World, network: Network) {
    this.#world = world
    this.#network = network
  }

  /** Whom it is no fault to find guilty. */
  addCheat(principal: Principal): void {
    this.#cheats.add(principal)
  }

  addListener(host: Host): void {
    this.#listeners.push(host)
  }

  /** What an object whose signature was checked proves with those before it. */
  observe(process: Process, one: AnyObject): readonly Finding[] {
    const { watch, proven } = this.#knownTo(process)
    const findings = watch.observe(one)
    for (const { kind, accused, message } of findings) {
      note(this.#world, process.host.name, `finds ${kind}: ${message}`)
      if (!this.#cheats.has(accused)) {
        this.#world.violated(
          'nobody honest is proven a fraud',
          `${process.host.name} finds ${kind}: ${message}`
        )
      }
      proven.add(accused)
      for (const to of this.#listeners) {
        this.#network.tell(process.host, to, (other) => this.#knownTo(other).proven.add(accused))
      }
    }
    return findings
  }

  observeBytes(process: Process, envelopes: readonly Uint8Array[]): void {
    for (const bytes of envelopes) this.observe(process, openAnyObject(bytes))
  }

  isProven(process: Process, principal: Principal): boolean {
    return this.#knownTo(process).proven.has(principal)
  }

  #knownTo(process: Process): Known {
    const known = this.#known.get(process) ?? { watch: new FraudWatch(), proven: new Set() }
    this.#known.set(process, known)
    return known
  }
}

/** A simulated directory: adverts reach every listener by themselves or not at all, and a process forgets them. */
import type { DirectoryEntry } from '../../src/peer/advert-table.ts'
import type { Advertisement } from '../../src/ticket/advertisement.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import type { Host, Process } from './host.ts'
import type { Network } from './network.ts'
import type { Observer } from './observer.ts'

export class SimulatedDirectory {
  readonly #network: Network
  readonly #observer: Observer
  readonly #listeners: Host[] = []
  readonly #tables = new WeakMap<Process, Map<Principal, DirectoryEntry>>()

  constructor(network: Network, observer: Observer) {
    this.#network = network
    this.#observer = observer
  }

  addListener(host: Host): void {
    this.#listeners.push(host)
  }

  publish(from: Host, advert: Signed<Advertisement>): void {
    this.#observer.open(advert.bytes)
    for (const to of this.#listeners) {
      this.#network.tell(from, to, (process) => this.#take(process, advert))
    }
  }

  /** What a process knows now. */
  entries(process: Process): DirectoryEntry[] {
    const now = process.clock.now()
    return [...this.#tableOf(process).values()].filter(({ advert }) => advert.body.notAfter > now)
  }

  #take(process: Process, advert: Signed<Advertisement>): void {
    const table = this.#tableOf(process)
    const known = table.get(advert.body.issuer)
    if (known !== undefined && known.advert.body.seq >= advert.body.seq) return
    table.set(advert.body.issuer, { advert, receivedAt: process.clock.now(), via: 'gossip' })
  }

  #tableOf(process: Process): Map<Principal, DirectoryEntry> {
    const known = this.#tables.get(process)
    if (known !== undefined) return known
    const table = new Map<Principal, DirectoryEntry>()
    this.#tables.set(process, table)
    return table
  }
}

/**
 * A simulated host: what outlives a crash (key, disk, the error of its clock) and the process that runs on it now.
 * When a process dies, nothing that it waits for ever comes, so that it has no effect any more.
 */
import type { Clock } from '../../src/base/clock.ts'
import type { Logger } from '../../src/base/log.ts'
import type { Handlers, Methods, Protocol } from '../../src/protocol/method.ts'
import { principalOfPublicKey, type SigningKey } from '../../src/ticket/principal.ts'
import { nativeEd25519 } from '../../src/wire/ed25519.ts'
import { Disk, SimulatedStore, type StoreFlaw } from './disk.ts'
import { BEGINNING, note, type World } from './world.ts'

export interface Service {
  readonly protocol: Protocol<Methods>
  readonly handlers: Handlers<Methods>
}

/** One run of the program of a host. */
export class Process {
  readonly host: Host
  readonly clock: Clock
  readonly store: SimulatedStore
  readonly logger: Logger
  readonly services = new Map<string, Service>()
  /** How often it was started on this host. */
  readonly epoch: number
  readonly startedAt: number
  readonly #listeners: (() => void)[] = []
  #isAlive = true

  constructor(host: Host) {
    const { world } = host
    this.host = host
    this.epoch = host.epoch
    this.startedAt = world.scheduler.now
    this.clock = clockOf(this)
    this.store = new SimulatedStore(this, host.disk, host.storeFlaw)
    this.logger = loggerOf(world, host.name)
  }

  get isAlive(): boolean {
    return this.#isAlive
  }

  /** Plans `run`, which is left out if this process is dead by then. */
  after(ms: number, run: () => void): () => void {
    return this.host.world.scheduler.after(ms, () => {
      if (this.#isAlive) run()
    })
  }

  serve<M extends Methods>(protocol: Protocol<M>, handlers: Handlers<M>): void {
    this.services.set(protocol.id, {
      protocol,
      handlers
    })
  }

  /** Calls back at the moment of its death. */
  onDeath(listener: () => void): void {
    this.#listeners.push(listener)
  }

  die(): void {
    this.#isAlive = false
    for (const listener of this.#listeners) listener()
  }
}

export interface HostInit {
  readonly name: string
  readonly storeFlaw?: StoreFlaw | undefined
  /** Wires the parts of a process and starts them. */
  readonly program: (process: Process) => Promise<void>
}

export class Host {
  readonly world: World
  readonly name: string
  readonly key: SigningKey
  readonly disk = new Disk()
  readonly storeFlaw: StoreFlaw | undefined
  /** How far its wall clock is ahead, ms. */
  skewMs = 0
  /** When that was set last, ms since the simulation began. */
  clockSetAt = 0
  epoch = 0
  /** Whether something happened here since the invariants were looked at. */
  isChanged = false
  /** Time limits that have not run out, those of dead processes included. */
  readonly limits = new Set<AbortController>()
  readonly #program: HostInit['program']
  #process: Process | undefined

  constructor(world: World, { name, program, storeFlaw }: HostInit) {
    this.world = world
    this.name = name
    this.#program = program
    this.storeFlaw = storeFlaw
    const seed = world.chance.bytes(32)
    this.key = { seed, principal: principalOfPublicKey(nativeEd25519.publicKey(seed)) }
  }

  /** The process that runs here now. */
  get process(): Process | undefined {
    return this.#process
  }

  /** UTC ms by its wall clock. */
  get wall(): number {
    return BEGINNING + this.world.scheduler.now + this.skewMs
  }

  setClock(skewMs: number): void {
    this.skewMs = skewMs
    this.clockSetAt = this.world.scheduler.now
    note(this.world, this.name, `its clock is ${skewMs} ms off`)
  }

  start(): void {
    if (this.#process !== undefined) return
    this.epoch += 1
    this.isChanged = true
    const process = new Process(this)
    this.#process = process
    note(this.world, this.name, `starts, the ${this.epoch}. time`)
    this.#program(process).then(
      () => note(this.world, this.name, 'is up'),
      (error: unknown) => {
        note(this.world, this.name, `cannot start: ${messageOf(error)}`)
        this.crash('a failed start')
      }
    )
  }

  /** The process is gone at once; it is started again in a while. */
  crash(why: string): void {
    const process = this.#process
    if (process === undefined) return
    const { chance, scheduler } = this.world
    note(this.world, this.name, `dies: ${why}`)
    this.#process = undefined
    this.isChanged = true
    process.die()
    scheduler.after(chance.happens(800) ? chance.between(100, 5000) : chance.between(5000, 40_000), () =>
      this.start()
    )
  }
}

/** Once a simulation is over: Node keeps signals that somebody listens to, and with them all that is left of it. */
export function letGo({ limits }: Host): void {
  for (const limit of limits) limit.abort(new Error('the simulation is over'))
  limits.clear()
}

export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const code = 'code' in error && typeof error.code === 'string' ? `${error.code} ` : ''
  return `${code}${error.message}`
}

function clockOf(process: Process): Clock {
  const { host } = process
  const { scheduler } = host.world
  return {
    now: () => host.wall,
    monotonic: () => scheduler.now - process.startedAt + 1000,
    async sleep(ms, { signal } = {}) {
      signal?.throwIfAborted()
      await new Promise<void>((resolve, reject) => {
        const give = (): void => {
          forget()
          reject(signal?.reason as Error)
        }
        const forget = process.after(ms, () => {
          signal?.removeEventListener('abort', give)
          resolve()
        })
        signal?.addEventListener('abort', give, { once: true })
      })
    },
    timeout(ms) {
      const controller = new AbortController()
      host.limits.add(controller)
      process.after(ms, () => {
        host.limits.delete(controller)
        controller.abort(new DOMException('timed out', 'TimeoutError'))
      })
      return controller.signal
    }
  }
}

function loggerOf(world: World, name: string): Logger {
  const write = (message: string, fields?: Readonly<Record<string, unknown>>): void => {
    const error = fields?.['error']
    note(world, name, error === undefined ? `“${message}”` : `“${message}”: ${messageOf(error)}`)
  }
  const logger: Logger = { debug: write, info: write, warn: write, error: write, child: () => logger }
  return logger
}

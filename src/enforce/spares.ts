/**
 * Vservers made ahead, as a pool of them: who leases one like the last gets it in a fraction of the time that an OCI runtime
 * takes to make a container. They are made while nobody waits for anything, and say nothing of who will have them.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Clock } from '../base/clock.ts'
import type { Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import { isAdministrative } from '../ticket/rights.ts'
import type { VserverSpec } from './enforcer.ts'
import type { Turns } from './turns.ts'
import type { Spare, VserverMaker } from './vserver-maker.ts'
import type { VserverPrograms } from './vserver-programs.ts'
import { fits, type OciProcess } from './waiting-start.ts'

/** Nothing is made ahead until so long after the last work for somebody. */
const QUIET_MS = 100
/** So long one stays ready for a program such as was launched before the last. */
const READY_AGAIN_MS = 5000

/** What has to be the same. */
type Kind = Pick<VserverSpec, 'image' | 'rights'>

/** One that is being made now, with a place of its own among the costly work. */
interface Making {
  readonly kind: Kind
  readonly done: Promise<void>
  /** Whether somebody waits for it: the next one would wait for nothing. */
  isAwaited: boolean
}

export interface SparesComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly maker: Pick<VserverMaker, 'makeSpare' | 'isUsable' | 'discardSpare'>
  readonly programs: Pick<VserverPrograms, 'prepare'>
  /** Bounds how much is made at a time; the same as the enforcer's. */
  readonly turns: Turns
}

export interface SparesInit {
  /** How many wait at most; with 0 there are none. */
  readonly kept: number
}

export class Spares implements Startable {
  readonly #c: SparesComponents
  readonly #kept: number
  #spares: Spare[] = []
  #kind: Kind | undefined
  /** Monotonic ms. */
  #readiedAt = 0
  /** What programs in those of this kind are started with. */
  #process: OciProcess | undefined
  /** When it is quiet enough; monotonic ms. */
  #notBefore = 0
  #filling: Promise<void> | undefined
  #making: Making | undefined
  #stopping = new AbortController()

  constructor(components: SparesComponents, init: SparesInit) {
    this.#c = components
    this.#kept = init.kept
  }

  async start(): Promise<void> {
    this.#stopping = new AbortController()
  }

  /** Removes those that wait. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#filling
    await this.discard()
  }

  /** One that can be what `spec` says, which is the caller's from here on; also the one that is just being made. */
  async take(spec: VserverSpec): Promise<Spare | undefined> {
    for (;;) {
      const making = this.#making
      if (
        this.#spares.length === 0 &&
        making?.isAwaited === false &&
        isDeepStrictEqual(making.kind, kindOf(spec))
      ) {
        making.isAwaited = true
        await making.done
      }
      const index = this.#spares.findIndex(({ record }) =>
        isDeepStrictEqual(kindOf(record.spec), kindOf(spec))
      )
      const [spare] = index < 0 ? [] : this.#spares.splice(index, 1)
      if (spare === undefined || (await this.#c.maker.isUsable(spare))) return spare
      await this.#discard([spare])
    }
  }

  /** Somebody's work goes first: what is made ahead waits for quiet. */
  postpone(): void {
    this.#notBefore = this.#c.clock.monotonic() + QUIET_MS
  }

  /** The next ones are to be like this. */
  expect(spec: VserverSpec): void {
    this.postpone()
    if (this.#kept === 0 || isAdministrative(spec.rights) || this.#stopping.signal.aborted) return
    const kind = kindOf(spec)
    if (!isDeepStrictEqual(kind, this.#kind)) this.#process = undefined
    this.#kind = kind
    this.#begin()
  }

  /** Programs in the next ones are to be started like this one. */
  expectProgram(spec: VserverSpec, process: OciProcess): void {
    if (!isDeepStrictEqual(kindOf(spec), this.#kind)) return
    this.#process = process
    this.postpone()
    this.#begin()
  }

  /** Removes those that wait, for whom else needs what they take. Gives how many there were. */
  async discard(): Promise<number> {
    const spares = this.#spares
    this.#spares = []
    await this.#discard(spares)
    return spares.length
  }

  #begin(): void {
    if (this.#stopping.signal.aborted) return
    this.#filling ??= this.#fill().finally(() => {
      this.#filling = undefined
    })
  }

  async #fill(): Promise<void> {
    const { clock, logger, turns } = this.#c
    const { signal } = this.#stopping
    try {
      for (;;) {
        for (let wait; (wait = this.#notBefore - clock.monotonic()) > 0;) await clock.sleep(wait, { signal })
        const kind = this.#kind
        const others = this.#spares.filter(({ record }) => !isDeepStrictEqual(kindOf(record.spec), kind))
        this.#spares = this.#spares.filter((spare) => !others.includes(spare))
        await this.#discard(others)
        if (kind === undefined) return
        const raw = this.#spares.findIndex((spare) => !this.#isReady(spare))
        if (raw < 0 && this.#spares.length >= this.#kept) return
        const [spare] = raw < 0 ? [] : this.#spares.splice(raw, 1)
        await turns.takeCostly('a spare', async () => this.#make(kind, spare))
        signal.throwIfAborted()
      }
    } catch (error) {
      // The next one that is made for somebody has it tried again.
      if (!signal.aborted) logger.warn('no vserver could be made ahead', { error })
    }
  }

  /** Whether a program such as was launched last can be started in it at once, as far as that is known. */
  #isReady({ start }: Spare): boolean {
    if (this.#process === undefined || (start !== undefined && fits(start, this.#process))) return true
    // Whoever launches now as this account and now as that one does not keep the node busy.
    return start !== undefined && this.#c.clock.monotonic() - this.#readiedAt < READY_AGAIN_MS
  }

  /** Makes one, or readies one that there is for other programs than it was made for. */
  async #make(kind: Kind, before: Spare | undefined): Promise<void> {
    const done = Promise.withResolvers<void>()
    this.#making = { kind, done: done.promise, isAwaited: false }
    try {
      const spare = before ?? (await this.#c.maker.makeSpare(kind))
      this.#spares.push(await this.#readied(kind, spare))
    } finally {
      this.#making = undefined
      done.resolve()
    }
  }

  async #readied(kind: Kind, { start: before, ...spare }: Spare): Promise<Spare> {
    const process = isDeepStrictEqual(kind, this.#kind) ? this.#process : undefined
    this.#readiedAt = this.#c.clock.monotonic()
    if (process === undefined) return before === undefined ? spare : { ...spare, start: before }
    try {
      const start = await this.#c.programs.prepare(spare.record, process, before)
      if (start !== undefined) return { ...spare, start }
    } catch (error) {
      this.#c.logger.warn('no program’s start could be made ahead', { error })
    }
    // The next program that is launched has it tried again.
    this.#process = undefined
    return spare
  }

  async #discard(spares: readonly Spare[]): Promise<void> {
    for (const spare of spares) {
      try {
        await this.#c.maker.discardSpare(spare)
      } catch (error) {
        this.#c.logger.error('a spare vserver could not be removed', {
          container: spare.record.container,
          error
        })
      }
    }
  }
}

function kindOf({ image, rights }: VserverSpec): Kind {
  return { image, rights: [...rights].sort() }
}

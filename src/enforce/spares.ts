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

/** Nothing is made ahead until so long after the last work for somebody. */
const QUIET_MS = 100

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
    this.#kind = kindOf(spec)
    this.#filling ??= this.#fill().finally(() => {
      this.#filling = undefined
    })
  }

  /** Removes those that wait, for whom else needs what they take. Gives how many there were. */
  async discard(): Promise<number> {
    const spares = this.#spares
    this.#spares = []
    await this.#discard(spares)
    return spares.length
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
        if (kind === undefined || this.#spares.length >= this.#kept) return
        await turns.takeCostly('a spare', async () => this.#make(kind))
        signal.throwIfAborted()
      }
    } catch (error) {
      // The next one that is made for somebody has it tried again.
      if (!signal.aborted) logger.warn('no vserver could be made ahead', { error })
    }
  }

  async #make(kind: Kind): Promise<void> {
    const done = Promise.withResolvers<void>()
    this.#making = { kind, done: done.promise, isAwaited: false }
    try {
      this.#spares.push(await this.#c.maker.makeSpare(kind))
    } finally {
      this.#making = undefined
      done.resolve()
    }
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

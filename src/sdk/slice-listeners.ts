/** Listeners to what happens to a slice, fed by one stream for all of them while there are any. */
import type { SliceEvent } from '../service/slice-event.ts'

/** By their type. `error`: the stream broke, and nothing more is heard until another listener is added. */
export type SliceEventMap = {
  readonly [K in SliceEvent['type']]: Extract<SliceEvent, { readonly type: K }>
} & { readonly error: unknown }

type Listener = (event: never) => void

export class SliceListeners {
  readonly #watch: (signal: AbortSignal) => AsyncIterable<SliceEvent>
  readonly #listeners = new Map<keyof SliceEventMap, Set<Listener>>()
  #reading: AbortController | undefined
  #isEnded = false

  constructor(watch: (signal: AbortSignal) => AsyncIterable<SliceEvent>) {
    this.#watch = watch
  }

  /** Calls the listener until the function given back is called. */
  on<K extends keyof SliceEventMap>(type: K, listener: (event: SliceEventMap[K]) => void): () => void {
    // Of its own, so that the same function may listen twice and each is taken away by itself.
    const own: Listener = (event) => listener(event)
    const ofType = this.#listeners.get(type) ?? new Set()
    this.#listeners.set(type, ofType.add(own))
    if (this.#reading === undefined) void this.#read()
    return () => {
      ofType.delete(own)
      if (![...this.#listeners.values()].some(({ size }) => size > 0)) this.#leave()
    }
  }

  close(): void {
    this.#leave()
    this.#listeners.clear()
  }

  /** What the stream would have told, had anybody waited for it. */
  end(event: SliceEventMap['end']): void {
    if (this.#reading !== undefined && !this.#isEnded) this.#tell('end', event as never)
    this.close()
  }

  #leave(): void {
    this.#reading?.abort(new Error('nobody listens'))
    this.#reading = undefined
  }

  async #read(): Promise<void> {
    const reading = new AbortController()
    this.#reading = reading
    this.#isEnded = false
    try {
      for await (const event of this.#watch(reading.signal)) this.#tell(event.type, event as never)
    } catch (error) {
      if (!reading.signal.aborted) this.#fail(error)
    } finally {
      if (this.#reading === reading) this.#reading = undefined
    }
  }

  #tell(type: keyof SliceEventMap, event: never): void {
    if (type === 'end') this.#isEnded = true
    for (const listener of this.#listeners.get(type) ?? []) {
      try {
        listener(event)
      } catch (error) {
        rethrow(error)
      }
    }
  }

  /** As with every emitter of Node.js, an error that nobody listens to is the process's. */
  #fail(error: unknown): void {
    if ((this.#listeners.get('error')?.size ?? 0) > 0) this.#tell('error', error as never)
    else rethrow(error)
  }
}

/** Where it breaks nothing but what whoever wrote the listener expects to break. */
function rethrow(error: unknown): void {
  queueMicrotask(() => {
    throw error
  })
}

/**
 * A call that streams items, as an async iterable: the call begins when it is first read, is held up by a reader that is
 * behind, and is over when the reader leaves, so that nothing waits in memory but a buffer of bounded size.
 */
import { SlicenetError } from '../base/errors.ts'

/** What waits for the reader. */
export interface ItemBuffer<T> {
  /** Takes an item in, or says that there is no room for it yet. */
  offer(item: T): boolean
  take(): T | undefined
  clear(): void
}

export interface StreamedCall<T, R> {
  readonly start: (options: {
    readonly onItem: (item: T) => Promise<void>
    readonly signal: AbortSignal
  }) => Promise<R>
  readonly buffer: () => ItemBuffer<T>
  readonly signal?: AbortSignal | undefined
}

/** Each iteration is a call of its own; none is made before. */
export function streamed<T, R>(call: StreamedCall<T, R>): AsyncIterable<T> {
  return { [Symbol.asyncIterator]: () => new CallStream(call) }
}

/** In order, at most so many. */
export class QueueBuffer<T> implements ItemBuffer<T> {
  readonly #max: number
  #items: T[] = []

  constructor(max: number) {
    this.#max = max
  }

  offer(item: T): boolean {
    if (this.#items.length >= this.#max) return false
    this.#items.push(item)
    return true
  }

  take(): T | undefined {
    return this.#items.shift()
  }

  clear(): void {
    this.#items = []
  }
}

/**
 * The reader's side of one call. What came before a call failed is given first, then the error, once. An abort throws
 * the signal's reason and gives nothing more.
 */
export class CallStream<T, R> implements AsyncIterableIterator<T>, AsyncDisposable {
  readonly #call: StreamedCall<T, R>
  readonly #buffer: ItemBuffer<T>
  readonly #leaving = new AbortController()
  #work: Promise<R> | undefined
  #outcome: { readonly error?: unknown } | undefined
  #changed = Promise.withResolvers<void>()

  constructor(call: StreamedCall<T, R>) {
    this.#call = call
    this.#buffer = call.buffer()
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** What the call resolves to; begins it. It does not settle while items wait that nobody reads. */
  async result(): Promise<R> {
    return this.#begin()
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    void this.#begin()
    for (;;) {
      const item = this.#buffer.take()
      if (item !== undefined) {
        this.#change()
        return { done: false, value: item }
      }
      if (this.#outcome !== undefined) break
      await this.#changed.promise
    }
    const outcome = this.#outcome
    this.#outcome = {}
    if ('error' in outcome) throw outcome.error
    return { done: true, value: undefined }
  }

  /** The reader leaves: the call is given up. */
  async return(): Promise<IteratorResult<T, undefined>> {
    this.#outcome = {}
    this.#buffer.clear()
    this.#leaving.abort(new SlicenetError('INTERRUPTED', 'nobody reads it any more'))
    this.#change()
    await this.#work?.catch(() => {})
    return { done: true, value: undefined }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return()
  }

  // oxlint-disable-next-line typescript/promise-function-async -- every caller is to get the same promise.
  #begin(): Promise<R> {
    this.#work ??= this.#run()
    return this.#work
  }

  // oxlint-disable-next-line typescript/promise-function-async -- the caller gets the call's own promise.
  #run(): Promise<R> {
    if (this.#outcome !== undefined) {
      const left = Promise.reject<R>(new TypeError('a stream is read before it is left'))
      left.catch(() => {})
      return left
    }
    const { signal } = this.#call
    const leave = (): void => this.#leaving.abort(signal?.reason)
    if (signal?.aborted === true) leave()
    signal?.addEventListener('abort', leave, { once: true })
    const work = this.#start().finally(() => signal?.removeEventListener('abort', leave))
    work.then(
      () => this.#end({}),
      (error: unknown) => {
        if (signal?.aborted === true) this.#buffer.clear()
        this.#end({ error })
      }
    )
    return work
  }

  async #start(): Promise<R> {
    const { signal } = this.#leaving
    signal.throwIfAborted()
    return this.#call.start({ onItem: (item) => this.#offer(item), signal })
  }

  async #offer(item: T): Promise<void> {
    for (;;) {
      // Nobody may ever make room when the call is over for its reader.
      if (this.#outcome !== undefined) throw new SlicenetError('INTERRUPTED', 'the stream is over')
      if (this.#buffer.offer(item)) return this.#change()
      await this.#changed.promise
    }
  }

  #end(outcome: { readonly error?: unknown }): void {
    this.#outcome ??= outcome
    this.#change()
  }

  /** Wakes whoever waits for an item or for room. */
  #change(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }
}

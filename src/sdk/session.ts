/** The calls that a client has under way, so that an abort ends the wait for one at once, and closing ends all of them. */
import { SlicenetError } from '../base/errors.ts'
import type { ControlCaller } from '../daemon/control-client.ts'
import type { CallSettings, ProgressSettings } from './client.ts'

export interface SessionInit {
  readonly call: ControlCaller
  /** Ends what serves the calls, if it is the client's own. */
  readonly stop?: () => Promise<void>
}

export class Session {
  readonly #init: SessionInit
  readonly #working = new Set<Promise<unknown>>()
  readonly #ends = new Set<(reason: unknown) => void>()
  #closing: Promise<void> | undefined

  constructor(init: SessionInit) {
    this.#init = init
  }

  /** As the caller it was made with. Throws `TypeError` once closed. */
  readonly call: ControlCaller = async (method, params, options = {}) => {
    if (this.#closing !== undefined) throw new TypeError('the client is closed')
    const { signal } = options
    signal?.throwIfAborted()
    const controller = new AbortController()
    const given = Promise.withResolvers<never>()
    given.promise.catch(() => {})
    const end = (reason: unknown): void => {
      given.reject(reason)
      controller.abort(reason)
    }
    const onAbort = (): void => end(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    this.#ends.add(end)
    const work = this.#init.call(method, params, { ...options, signal: controller.signal })
    // What was asked for may take a while to be undone; the caller need not wait, but whoever closes does.
    const settled = work.then(
      () => {},
      () => {}
    )
    this.#working.add(settled)
    void settled.then(() => this.#working.delete(settled))
    try {
      return await Promise.race([work, given.promise])
    } finally {
      signal?.removeEventListener('abort', onAbort)
      this.#ends.delete(end)
    }
  }

  /** Ends every call, and what serves them once it has undone what was begun. Idempotent. */
  async close(): Promise<void> {
    this.#closing ??= this.#close()
    await this.#closing
  }

  async #close(): Promise<void> {
    const reason = new SlicenetError('INTERRUPTED', 'the client was closed')
    for (const end of this.#ends) end(reason)
    await Promise.all(this.#working)
    await this.#init.stop?.()
  }
}

/** What a call that reports its steps takes. */
export function progressOptions({ onProgress, signal }: ProgressSettings = {}): CallSettings & {
  readonly onItem?: NonNullable<ProgressSettings['onProgress']>
} {
  return {
    ...(onProgress === undefined ? {} : { onItem: onProgress }),
    ...(signal === undefined ? {} : { signal })
  }
}

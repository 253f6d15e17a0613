/**
 * Two joined `ByteDuplex` ends in memory, for calls that a peer makes to itself (a node that delegates to the agent
 * in the same daemon): libp2p does not dial its own peer.
 */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { ByteDuplex } from '../wire/duplex.ts'

/** One direction: bounded, so that a writer waits for its reader. */
class Channel {
  readonly #queue: Uint8Array[] = []
  #queuedBytes = 0
  #ended = false
  #failure: Error | undefined
  #wake: () => void = () => {}
  #room: () => void = () => {}

  async write(bytes: Uint8Array): Promise<void> {
    while (this.#queuedBytes >= LIMITS.streamReadAheadBytesMax && this.#failure === undefined) {
      await new Promise<void>((resolve) => (this.#room = resolve))
    }
    if (this.#failure !== undefined) throw this.#failure
    if (this.#ended) throw new TypeError('written after its end')
    this.#queue.push(bytes)
    this.#queuedBytes += bytes.length
    this.#wake()
  }

  end(): void {
    this.#ended = true
    this.#wake()
  }

  fail(error: Error): void {
    this.#failure ??= error
    this.#wake()
    this.#room()
  }

  async *read(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const chunk = this.#queue.shift()
      if (chunk !== undefined) {
        this.#queuedBytes -= chunk.length
        this.#room()
        yield chunk
      } else if (this.#failure !== undefined) {
        throw this.#failure
      } else if (this.#ended) {
        return
      } else {
        await new Promise<void>((resolve) => (this.#wake = resolve))
      }
    }
  }
}

export function loopbackDuplexes(): [ByteDuplex, ByteDuplex] {
  const there = new Channel()
  const back = new Channel()
  const broken = new AbortController()
  const abort = (cause: Error): void => {
    const error = new SlicenetError('PEER_UNREACHABLE', 'the call was given up', { cause })
    broken.abort(error)
    there.fail(error)
    back.fail(error)
  }
  const end = (reading: Channel, writing: Channel): ByteDuplex => ({
    source: reading.read(),
    write: async (bytes) => writing.write(bytes),
    // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
    closeWrite: async () => writing.end(),
    broken: broken.signal,
    abort
  })
  return [end(back, there), end(there, back)]
}

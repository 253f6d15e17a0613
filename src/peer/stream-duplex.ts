/**
 * A libp2p stream as a `ByteDuplex`. A libp2p 3 stream is an event target without message boundaries; its own iterator
 * buffers without bound and its `onDrain()` waits only once, so both directions are held back here.
 */
import type { Stream } from '@libp2p/interface'
import type { Uint8ArrayList } from 'uint8arraylist'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { ByteDuplex } from '../wire/duplex.ts'

export interface StreamDuplex extends ByteDuplex {
  /** Resolves once both halves are closed; gives the stream up when that takes longer than `graceMs`. */
  settle(graceMs: number): Promise<void>
}

/** `what` names the stream in errors, such as `/slicenet/agent/1.0.0 with 12D3…`. */
export function streamDuplex(stream: Stream, what: string): StreamDuplex {
  const broken = new AbortController()
  const lost = (cause?: unknown): SlicenetError =>
    new SlicenetError('PEER_UNREACHABLE', `the stream ${what} broke`, { cause })
  const incoming = readAhead(stream, (cause) => {
    const error = lost(cause)
    broken.abort(error)
    return error
  })
  return {
    source: incoming,
    broken: broken.signal,
    async write(bytes) {
      if (broken.signal.aborted) throw broken.signal.reason
      let more: boolean
      try {
        more = stream.send(bytes)
      } catch (error) {
        throw lost(error)
      }
      if (!more) await drained(stream, lost)
    },
    async closeWrite() {
      try {
        await stream.close({ signal: AbortSignal.timeout(LIMITS.writeStallMsMax) })
      } catch (error) {
        throw lost(error)
      }
    },
    abort: (error) => stream.abort(error),
    settle: async (graceMs) => settle(stream, graceMs)
  }
}

/**
 * What the stream brings, with the sender held back when the reader falls behind. `onBroken` turns the cause of an
 * end that the other side did not announce into the error that the reader gets.
 */
function readAhead(
  stream: Stream,
  onBroken: (cause?: unknown) => Error
): AsyncIterable<Uint8Array | Uint8ArrayList> {
  let queue: (Uint8Array | Uint8ArrayList)[] = []
  let queuedBytes = 0
  // The other side may have finished before this listener came: the protocol is agreed on asynchronously.
  let announced = stream.remoteWriteStatus === 'closed' && stream.status === 'open'
  let ended = announced && stream.readableEnded
  let failure: Error | undefined
  let discarding = false
  let isResuming = false
  let wake = (): void => {}

  const holdBack = (): void => {
    // A stream that is paused by what it delivers as it resumes would go on taking data and never deliver it.
    if (isResuming || queuedBytes < LIMITS.streamReadAheadBytesMax) return
    if (stream.readStatus === 'readable') stream.pause()
  }
  const goOn = (): void => {
    isResuming = true
    try {
      resume(stream)
    } finally {
      isResuming = false
    }
    holdBack()
  }
  stream.addEventListener('message', ({ data }) => {
    if (discarding) return
    queue.push(data)
    queuedBytes += data.byteLength
    holdBack()
    wake()
  })
  stream.addEventListener('remoteCloseWrite', () => {
    announced = true
  })
  stream.addEventListener('end', () => {
    // An aborted stream says `end` as well; then `close` follows and tells why.
    if (announced) ended = true
    wake()
  })
  stream.addEventListener('close', ({ error }) => {
    resume(stream)
    if (error === undefined && announced) {
      ended = true
    } else {
      failure ??= onBroken(error)
    }
    wake()
  })
  if (stream.status !== 'open') failure = onBroken()

  return {
    async *[Symbol.asyncIterator]() {
      try {
        for (;;) {
          const chunk = queue.shift()
          if (chunk !== undefined) {
            queuedBytes -= chunk.byteLength
            if (queuedBytes < LIMITS.streamReadAheadBytesMax / 2) goOn()
            yield chunk
          } else if (failure !== undefined) {
            throw failure
          } else if (ended) {
            return
          } else {
            await new Promise<void>((resolve) => (wake = resolve))
          }
        }
      } finally {
        // Nobody reads any more, but the end of the stream must still come through.
        discarding = true
        queue = []
        resume(stream)
      }
    }
  }
}

/** Lets a paused stream go on; what came in meanwhile is delivered at once, even after the stream closed. */
function resume(stream: Stream): void {
  if (stream.readStatus === 'paused') stream.resume()
}

/** Resolves when everything written has left. Gives the stream up when the other side takes nothing for too long. */
async function drained(stream: Stream, lost: (cause?: unknown) => Error): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const stalled = (): void =>
      stream.abort(new Error(`nothing was taken for ${LIMITS.writeStallMsMax / 1000} s`))
    let timer = setTimeout(stalled, LIMITS.writeStallMsMax)
    const done = (): void => {
      clearTimeout(timer)
      stream.removeEventListener('drain', progress)
      stream.removeEventListener('idle', progress)
      stream.removeEventListener('close', closed)
    }
    const progress = (): void => {
      if (stream.writeBufferLength === 0 && !stream.writableNeedsDrain) {
        done()
        resolve()
      } else {
        clearTimeout(timer)
        timer = setTimeout(stalled, LIMITS.writeStallMsMax)
      }
    }
    const closed = (event: { error?: Error }): void => {
      done()
      reject(lost(event.error))
    }
    stream.addEventListener('drain', progress)
    stream.addEventListener('idle', progress)
    stream.addEventListener('close', closed)
  })
}

async function settle(stream: Stream, graceMs: number): Promise<void> {
  if (stream.status !== 'open' && stream.status !== 'closing') return
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => stream.abort(new Error('not closed in time')), graceMs)
    stream.addEventListener(
      'close',
      () => {
        clearTimeout(timer)
        resolve()
      },
      { once: true }
    )
  })
}

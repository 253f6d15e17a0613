/** The byte streams of one program as one iterable; whoever reads slowly makes the program wait. */
import type { Readable } from 'node:stream'

export interface OutputPiece {
  readonly stream: 'stdout' | 'stderr'
  readonly bytes: Uint8Array
}

export async function* mergeOutput(stdout: Readable, stderr?: Readable): AsyncGenerator<OutputPiece> {
  const sources = new Map<OutputPiece['stream'], AsyncIterator<Buffer>>()
  sources.set('stdout', stdout[Symbol.asyncIterator]() as AsyncIterator<Buffer>)
  if (stderr !== undefined) sources.set('stderr', stderr[Symbol.asyncIterator]() as AsyncIterator<Buffer>)
  const next = async (stream: OutputPiece['stream'], source: AsyncIterator<Buffer>) => ({
    stream,
    result: await source.next()
  })
  const waiting = new Map([...sources].map(([stream, source]) => [stream, next(stream, source)]))
  try {
    while (waiting.size > 0) {
      const { stream, result } = await Promise.race(waiting.values())
      if (result.done === true) {
        waiting.delete(stream)
        continue
      }
      waiting.set(stream, next(stream, sources.get(stream)!))
      yield { stream, bytes: result.value }
    }
  } finally {
    // A reader that goes away leaves a program that writes to nobody.
    stdout.destroy()
    stderr?.destroy()
  }
}

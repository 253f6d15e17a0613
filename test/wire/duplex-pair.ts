/** Two ends of a byte stream in memory, which cut what is written into pieces of a size that the test chooses. */
import type { ByteDuplex } from '../../src/wire/duplex.ts'

export function duplexPair(init: { readonly pieceBytes?: number } = {}): [ByteDuplex, ByteDuplex] {
  const there = channel(init.pieceBytes ?? 7)
  const back = channel(init.pieceBytes ?? 7)
  return [end(there, back), end(back, there)]
}

function channel(pieceBytes: number) {
  const queue: (Uint8Array | Error | undefined)[] = []
  let wake = (): void => {}
  const put = (item: Uint8Array | Error | undefined): void => {
    queue.push(item)
    wake()
  }
  return {
    broken: new AbortController(),
    put,
    write(bytes: Uint8Array): void {
      for (let at = 0; at < bytes.length; at += pieceBytes) put(bytes.slice(at, at + pieceBytes))
    },
    async *read(): AsyncGenerator<Uint8Array> {
      for (;;) {
        while (queue.length === 0) await new Promise<void>((resolve) => (wake = resolve))
        const item = queue.shift()
        if (item === undefined) return
        if (item instanceof Error) throw item
        yield item
      }
    }
  }
}

function end(outgoing: ReturnType<typeof channel>, incoming: ReturnType<typeof channel>): ByteDuplex {
  return {
    source: incoming.read(),
    broken: incoming.broken.signal,
    async write(bytes) {
      if (outgoing.broken.signal.aborted) throw new Error('the stream is broken')
      outgoing.write(bytes)
    },
    async closeWrite() {
      outgoing.put(undefined)
    },
    abort(error) {
      for (const direction of [outgoing, incoming]) {
        direction.broken.abort(error)
        direction.put(error)
      }
    }
  }
}

/**
 * The kept output of a launched program, in the log format of Kubernetes, which conmon writes: one line is
 * `<time> <stream> <P|F> <text>`, where `P` says that the line goes on in the next one.
 */
import { open, stat, type FileHandle } from 'node:fs/promises'
import type { Clock } from '../base/clock.ts'
import type { LogChunk } from './enforcer.ts'

const READ_BYTES = 64 * 1024
const POLL_MS = 100
const NEWLINE = 0x0a

export interface ReadLogInit {
  readonly path: string
  /** Asked when everything was read: whether more may come. */
  readonly mayGrow: () => Promise<boolean>
  readonly signal?: AbortSignal
}

/**
 * Reads a log from its start and, while more may come, follows it, also into the new file that is begun when it is full.
 */
export async function* readLog(
  components: { readonly clock: Clock },
  init: ReadLogInit
): AsyncGenerator<LogChunk> {
  let file = await openLog(init.path)
  let rest: Buffer = Buffer.alloc(0)
  try {
    // Asked before reading, so that what is written between the two is read in the next round.
    for (let last = false; ;) {
      init.signal?.throwIfAborted()
      const buffer = Buffer.alloc(READ_BYTES)
      const count = file === undefined ? 0 : (await file.read(buffer, 0, READ_BYTES)).bytesRead
      if (count > 0) {
        rest = Buffer.concat([rest, buffer.subarray(0, count)])
        for (let end = rest.indexOf(NEWLINE); end >= 0; end = rest.indexOf(NEWLINE)) {
          const chunk = parseLine(rest.subarray(0, end))
          rest = rest.subarray(end + 1)
          if (chunk !== undefined) yield chunk
        }
        continue
      }
      if (file === undefined || (await wasReplaced(file, init.path))) {
        const next = await openLog(init.path)
        if (next !== undefined) {
          await file?.close()
          file = next
          rest = Buffer.alloc(0)
          continue
        }
      }
      if (last) return
      last = !(await init.mayGrow())
      if (!last)
        await components.clock.sleep(POLL_MS, init.signal === undefined ? {} : { signal: init.signal })
    }
  } finally {
    await file?.close()
  }
}

function parseLine(line: Buffer): LogChunk | undefined {
  const timeEnd = line.indexOf(' ')
  const streamEnd = line.indexOf(' ', timeEnd + 1)
  const tagEnd = line.indexOf(' ', streamEnd + 1)
  if (timeEnd < 0 || streamEnd < 0 || tagEnd < 0) return undefined
  const time = Date.parse(line.toString('latin1', 0, timeEnd))
  const stream = line.toString('latin1', timeEnd + 1, streamEnd)
  const partial = line[streamEnd + 1] === 0x50
  if (Number.isNaN(time) || (stream !== 'stdout' && stream !== 'stderr')) return undefined
  const text = line.subarray(tagEnd + 1)
  const bytes = partial ? new Uint8Array(text) : new Uint8Array(Buffer.concat([text, Buffer.from('\n')]))
  return { stream, time, bytes }
}

async function openLog(path: string): Promise<FileHandle | undefined> {
  return open(path, 'r').catch(() => undefined)
}

async function wasReplaced(file: FileHandle, path: string): Promise<boolean> {
  const [mine, current] = await Promise.all([file.stat(), stat(path).catch(() => undefined)])
  return current !== undefined && current.ino !== mine.ino
}

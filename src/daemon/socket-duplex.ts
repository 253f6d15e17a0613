/**
 * A Unix socket as a two-way byte stream. Each side may end its half and go on reading; that the other side is gone
 * for good shows in `broken`, also when nothing is being read or written.
 */
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { ByteDuplex } from '../wire/duplex.ts'

const PROBE_INTERVAL_MS = 250
const NOTHING = new Uint8Array(0)

/** The socket must have been made with `allowHalfOpen`, and is this duplex's alone from now on. */
export function socketDuplex(socket: Socket): ByteDuplex {
  const controller = new AbortController()
  const { signal: broken } = controller
  let failure: Error | undefined
  let isEnding = false
  const breakOff = (error: Error): void => {
    failure ??= error
    controller.abort(failure)
  }
  // The end of the other half looks the same whether its process lives on or not. A write of no bytes tells them
  // apart: it does nothing while somebody is there to read, and fails with EPIPE after.
  const probe = setInterval(() => {
    if (socket.writable && socket.writableLength === 0) socket.write(NOTHING)
  }, PROBE_INTERVAL_MS)
  probe.unref()
  socket.on('error', breakOff)
  socket.on('close', () => {
    clearInterval(probe)
    if (!isEnding || !socket.readableEnded) breakOff(gone())
  })
  return {
    source: socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>,
    broken,
    messageBytesMax: LIMITS.controlMessageBytesMax,
    async write(bytes) {
      broken.throwIfAborted()
      if (isEnding) throw new TypeError('the writing half was closed')
      if (!socket.write(bytes)) await drained(socket, broken)
    },
    async closeWrite() {
      if (isEnding || broken.aborted) return
      isEnding = true
      await new Promise<void>((resolve) => {
        socket.once('close', resolve)
        socket.end(resolve)
      })
    },
    abort(error) {
      breakOff(error)
      socket.destroy()
    }
  }
}

async function drained(socket: Socket, broken: AbortSignal): Promise<void> {
  try {
    await once(socket, 'drain', { signal: broken })
  } catch (error) {
    broken.throwIfAborted()
    throw error
  }
}

function gone(): SlicenetError {
  return new SlicenetError('DAEMON_UNREACHABLE', 'the other side of the control socket is gone')
}

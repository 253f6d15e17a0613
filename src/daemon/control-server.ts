/** Serves the control protocol on a Unix socket that its owner alone can open. */
import { once } from 'node:events'
import { chmod, lstat, mkdir, unlink } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SlicenetError } from '../base/errors.ts'
import type { Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { answerCall } from '../protocol/exchange.ts'
import type { Handlers } from '../protocol/method.ts'
import { admitting } from './control-admission.ts'
import { connectControl, type ControlMethods } from './control-client.ts'
import { controlProtocol } from './control-protocol.ts'
import { requireSocketPath } from './environment.ts'
import { socketDuplex } from './socket-duplex.ts'

export interface ControlServerComponents {
  readonly logger: Logger
}

export interface ControlServerInit {
  readonly socketPath: string
  readonly handlers: Handlers<ControlMethods>
}

/** Calls that are under way when the server stops get this long to say their last word. */
const STOP_GRACE_MS = 2000
const LINGER_MS = 2000

/** Its start throws `DAEMON_RUNNING` when another daemon answers there, and `CONFIG_INVALID` for an unusable path. */
export function createControlServer(components: ControlServerComponents, init: ControlServerInit): Startable {
  return new ControlServer(components, init)
}

class ControlServer implements Startable {
  readonly #logger: Logger
  readonly #init: ControlServerInit
  readonly #handlers: Handlers<ControlMethods>
  readonly #sockets = new Set<Socket>()
  readonly #calls = new Set<Promise<void>>()
  #stopping = new AbortController()
  #server: Server | undefined

  constructor(components: ControlServerComponents, init: ControlServerInit) {
    this.#logger = components.logger.child('control')
    this.#init = init
    this.#handlers = admitting(init.handlers)
  }

  async start(): Promise<void> {
    if (this.#server !== undefined) return
    const path = requireSocketPath(this.#init.socketPath)
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
    await clearStale(path)
    this.#stopping = new AbortController()
    const server = createServer({ allowHalfOpen: true }, (socket) => this.#serve(socket))
    server.maxConnections = LIMITS.controlConnectionsMax
    this.#server = server
    try {
      await listenPrivately(server, path)
    } catch (error) {
      this.#server = undefined
      throw error
    }
    this.#logger.info('listening', { path })
  }

  async stop(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    const closed = once(server, 'close')
    // Also removes the socket from the file system.
    server.close()
    this.#stopping.abort(new SlicenetError('DAEMON_UNREACHABLE', 'the daemon is ending'))
    const settled = Promise.all(this.#calls)
    await Promise.race([settled, delay(STOP_GRACE_MS, undefined, { ref: false })])
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    const call = answerCall(controlProtocol, this.#handlers, socketDuplex(socket), {
      principal: undefined,
      signal: this.#stopping.signal,
      onInternalError: (method, error) => this.#logger.error('call failed', { method, error })
    })
      .catch((error: unknown) => this.#logger.error('call broke', { error }))
      .finally(() => {
        this.#calls.delete(call)
        linger(socket)
      })
    this.#calls.add(call)
  }
}

/**
 * Reads on past the reply and throws away what comes, until the caller closes: closing first would make a caller that
 * still writes fail before it has read the reply.
 */
function linger(socket: Socket): void {
  if (socket.destroyed) return
  socket.removeAllListeners('readable')
  socket.setTimeout(LINGER_MS, () => socket.destroy())
  socket.on('end', () => socket.destroy())
  if (socket.readableEnded) socket.destroy()
  else socket.resume()
}

/** Removes a socket that a daemon left behind when it was killed. */
async function clearStale(path: string): Promise<void> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (found === undefined) return
  if (!found.isSocket()) {
    throw new SlicenetError('CONFIG_INVALID', `${path} is in the way of the control socket and is none`)
  }
  await requireUnanswered(path)
  await unlink(path)
}

/** Throws `DAEMON_RUNNING` if a daemon answers at the path, whether it is a socket or nothing at all otherwise. */
export async function requireUnanswered(path: string): Promise<void> {
  try {
    const socket = await connectControl(path)
    socket.destroy()
  } catch (error) {
    const code = error instanceof SlicenetError ? error.code : undefined
    if (code === 'DAEMON_UNREACHABLE') return
    if (code !== 'BUSY') throw error
  }
  throw new SlicenetError('DAEMON_RUNNING', `another daemon answers at ${path}`, {
    hint: 'stop it first, or give this one a SLICENET_HOME of its own'
  })
}

async function listenPrivately(server: Server, path: string): Promise<void> {
  // The socket is made within `listen`, so that at no instant anybody else can open it.
  const mask = process.umask(0o177)
  try {
    server.listen(path)
  } finally {
    process.umask(mask)
  }
  await once(server, 'listening')
  await chmod(path, 0o600)
}

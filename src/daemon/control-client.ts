/** Calls the local daemon over its Unix socket, one connection a call. */
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import type { Uint8ArrayList } from 'uint8arraylist'
import { SlicenetError } from '../base/errors.ts'
import { callMethod } from '../protocol/exchange.ts'
import type { Caller, ResultOf } from '../protocol/method.ts'
import type { ByteDuplex } from '../wire/duplex.ts'
import { controlProtocol, type NodeView } from './control-protocol.ts'
import { requireSocketPath } from './environment.ts'
import { socketDuplex } from './socket-duplex.ts'

export type ControlMethods = typeof controlProtocol.methods
export type ControlCaller = Caller<ControlMethods>
export type ControlResult<K extends keyof ControlMethods> = ResultOf<ControlMethods[K]>

export interface ControlClientInit {
  readonly socketPath: string
}

/**
 * The caller's calls throw `DAEMON_UNREACHABLE` when no daemon listens or it goes away meanwhile, what the daemon
 * throws, and the signal's reason.
 */
export function createControlClient(init: ControlClientInit): ControlCaller {
  return async (method, params, options = {}) => {
    const socket = await connectControl(init.socketPath, options)
    const duplex = withConnectionErrors(socketDuplex(socket), method)
    try {
      return await callMethod(controlProtocol, method, params, duplex, options)
    } finally {
      socket.destroy()
    }
  }
}

/** The nodes that match, all in one list. Throws as `find` does. */
export async function findNodes(
  call: ControlCaller,
  query: string | undefined,
  options: { readonly signal?: AbortSignal } = {}
): Promise<NodeView[]> {
  const nodes: NodeView[] = []
  await call('find', query === undefined ? {} : { query }, {
    ...options,
    onItem: ({ node }) => void nodes.push(node)
  })
  return nodes
}

/** The duplex with what the kernel says of a lost connection in words; errors of the caller's own stay as they are. */
function withConnectionErrors(duplex: ByteDuplex, method: string): ByteDuplex {
  return {
    ...duplex,
    source: untilGone(duplex.source, method),
    async write(bytes) {
      try {
        await duplex.write(bytes)
      } catch (error) {
        throw isConnectionError(error) ? wentAway(method, error) : error
      }
    }
  }
}

/** A call stops reading at its result: reaching the end of the stream means that none came. */
async function* untilGone(
  source: ByteDuplex['source'],
  method: string
): AsyncGenerator<Uint8Array | Uint8ArrayList> {
  const chunks = source[Symbol.asyncIterator]()
  for (;;) {
    let next
    try {
      next = await chunks.next()
    } catch (error) {
      throw isConnectionError(error) ? wentAway(method, error) : error
    }
    if (next.done === true) throw wentAway(method)
    yield next.value
  }
}

function wentAway(method: string, cause?: unknown): SlicenetError {
  return new SlicenetError('DAEMON_UNREACHABLE', `the daemon went away during ${method}`, {
    hint: 'see whether it still runs, and start it with `slicenet daemon`',
    ...(cause === undefined ? {} : { cause })
  })
}

function isConnectionError(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code
  return code === 'EPIPE' || code === 'ECONNRESET' || code === 'ERR_STREAM_PREMATURE_CLOSE'
}

/** Connects to a control socket. Throws `DAEMON_UNREACHABLE` when nobody listens, `BUSY`, `CONFIG_INVALID`, `DENIED`. */
export async function connectControl(
  socketPath: string,
  options: { readonly signal?: AbortSignal } = {}
): Promise<Socket> {
  options.signal?.throwIfAborted()
  const socket = createConnection({ path: requireSocketPath(socketPath), allowHalfOpen: true })
  try {
    await once(socket, 'connect', options.signal === undefined ? {} : { signal: options.signal })
    return socket
  } catch (error) {
    socket.destroy()
    options.signal?.throwIfAborted()
    throw connectError(socketPath, error)
  }
}

function connectError(socketPath: string, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException
  // Somebody listens, and has as many callers waiting as the kernel keeps for it.
  if (code === 'EAGAIN') return new SlicenetError('BUSY', 'the daemon has too many callers', { cause: error })
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    return new SlicenetError('DAEMON_UNREACHABLE', `no daemon listens at ${socketPath}`, {
      hint: 'start it with `slicenet daemon`',
      cause: error
    })
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return new SlicenetError('DENIED', `this account may not use the daemon at ${socketPath}`, {
      hint: 'run as the account that runs the daemon',
      cause: error
    })
  }
  return error
}

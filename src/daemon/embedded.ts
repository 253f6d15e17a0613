/** A researcher's peer within a process that is no daemon: a command in a hurry, or a program that uses the SDK. */
import { systemClock } from '../base/clock.ts'
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import { createLogger } from '../base/log.ts'
import type { Handlers } from '../protocol/method.ts'
import { parse, type Schema } from '../wire/codec.ts'
import { ComposedPeer } from './compose.ts'
import { loadConfig, type DaemonConfig } from './config.ts'
import type { ControlCaller, ControlMethods } from './control-client.ts'
import { controlHandlers } from './control-handlers.ts'
import { controlProtocol } from './control-protocol.ts'
import { systemParts } from './daemon.ts'
import type { Environment } from './environment.ts'
import { createKey, loadKey } from './key-file.ts'

export interface EmbeddedInit {
  readonly environment: Environment
  /** Instead of what the configuration file says. */
  readonly changes?: Partial<Pick<DaemonConfig, 'bootstrap'>>
  /** Takes the peer's log, a line at a time; by default errors go to standard error. */
  readonly writeLog?: (line: string) => void
  readonly signal: AbortSignal
}

export interface EmbeddedPeer {
  readonly call: ControlCaller
  stop(): Promise<void>
}

/**
 * Starts a peer with the same state as a daemon's, but without the roles of one. Makes its key if there is none. Throws
 * `CONFIG_INVALID`, `STORE_LOCKED` when a daemon or another such peer has that state, `STORE_CORRUPT`.
 */
export async function startEmbedded(init: EmbeddedInit): Promise<EmbeddedPeer> {
  const { environment, signal, changes = {} } = init
  const config = {
    ...withoutRoles(await loadConfig(environment.configFile, { required: false })),
    ...changes
  }
  const logger = createLogger({
    level: environment.debug || init.writeLog !== undefined ? environment.logLevel : 'error',
    clock: systemClock,
    write: init.writeLog ?? ((line) => void process.stderr.write(line))
  })
  const key = await loadOrCreateKey(environment.keyFile)
  const peer = new ComposedPeer(
    { ...systemParts(environment, logger), key },
    {
      config,
      stateDirectory: environment.stateDirectory,
      imagesDirectory: environment.imagesDirectory,
      shortLived: true
    }
  )
  signal.throwIfAborted()
  await peer.start()
  if (signal.aborted) {
    await peer.stop()
    throw signal.reason
  }
  const handlers = controlHandlers(() => peer.parts, {
    config,
    startedAt: systemClock.now(),
    onShutdown: async () => {
      throw new SlicenetError('DAEMON_UNREACHABLE', 'no daemon runs that could be ended')
    }
  })
  return { call: directCaller(handlers), stop: () => peer.stop() }
}

/** A node's or agent's duties need a daemon; a command in its place is a researcher's peer. */
function withoutRoles({ node: _node, agent: _agent, ...config }: DaemonConfig): DaemonConfig {
  return config
}

async function loadOrCreateKey(path: string) {
  try {
    return await loadKey(path)
  } catch (error) {
    if (error instanceof SlicenetError && error.code === 'NOT_FOUND') return createKey(path)
    throw error
  }
}

/**
 * Calls the handlers in the same process, as the control client does over the socket. A call that is aborted rejects when
 * its handler has undone what it began.
 */
function directCaller(handlers: Handlers<ControlMethods>): ControlCaller {
  async function* nothing(): AsyncGenerator<never> {}
  return async (method, params, options = {}) => {
    const { signal = new AbortController().signal, onItem, input } = options
    const schema = controlProtocol.methods[method].params as Schema<unknown>
    const typed = parse(schema, params, 'PROTOCOL_ERROR', `parameters of ${method}`)
    const handler = handlers[method] as (params: unknown, call: unknown) => Promise<never>
    signal.throwIfAborted()
    try {
      return await handler(typed, {
        principal: undefined,
        signal,
        emit: async (item: never) => {
          signal.throwIfAborted()
          await onItem?.(item)
        },
        input: input ?? nothing()
      })
    } catch (error) {
      signal.throwIfAborted()
      throw asSlicenetError(error)
    }
  }
}

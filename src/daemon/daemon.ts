/** Runs a daemon from its environment and configuration until it is told to end, and ends it in order. */
import { join } from 'node:path'
import { systemClock } from '../base/clock.ts'
import { Lifecycle } from '../base/lifecycle.ts'
import { createLogger, type Logger } from '../base/log.ts'
import { systemRandom } from '../base/random.ts'
import { systemDisk } from '../store/disk.ts'
import { createStore } from '../store/disk-store.ts'
import { ComposedPeer } from './compose.ts'
import { loadConfig, withBootstrap } from './config.ts'
import { controlHandlers } from './control-handlers.ts'
import { createControlServer, requireUnanswered } from './control-server.ts'
import type { Environment } from './environment.ts'
import { loadKey } from './key-file.ts'
import type { PartDecorators } from './part-decorators.ts'
import { SlicenetError } from '../base/errors.ts'

export interface DaemonInit {
  readonly environment: Environment
  /** Absolute path; absent means the environment's, which need not exist. */
  readonly configFile?: string
  /** Peers to join by beside the configuration's. */
  readonly bootstrap?: readonly string[]
  /** Its abort ends the daemon in order. */
  readonly signal: AbortSignal
  readonly onReady?: () => void
  readonly decorators?: PartDecorators
}

/**
 * Resolves when the daemon has ended in order. Throws what kept it from starting: `CONFIG_INVALID`, `NOT_FOUND`
 * without a key, `NOT_ROOT`, `DAEMON_RUNNING`, `STORE_LOCKED`, `STORE_CORRUPT`, `PORT_IN_USE`, `HOST_PROGRAM_MISSING`.
 */
export async function runDaemon(init: DaemonInit): Promise<void> {
  const { environment, signal, decorators = {} } = init
  const loaded = await loadConfig(init.configFile ?? environment.configFile, {
    required: init.configFile !== undefined
  })
  const config = await withBootstrap(loaded, init.bootstrap ?? [])
  if (config.node !== undefined && process.getuid?.() !== 0) {
    throw new SlicenetError('NOT_ROOT', 'a node makes vservers, for which it must be root', {
      hint: 'run `slicenet daemon` as root, or take the section `node` out of its configuration'
    })
  }
  const key = await loadKey(environment.keyFile)
  // Else the store, which comes first, would say only that some process has it open.
  await requireUnanswered(environment.socketPath)
  const logger = createLogger({
    level: environment.logLevel,
    clock: systemClock,
    write: (line) => void process.stderr.write(line)
  })
  const ended = Promise.withResolvers<void>()
  const peer = new ComposedPeer(
    { ...systemParts(environment, logger, decorators), key },
    {
      config,
      stateDirectory: environment.stateDirectory,
      imagesDirectory: environment.imagesDirectory,
      shortLived: false,
      decorators
    }
  )
  const handlers = controlHandlers(() => peer.parts, {
    config,
    startedAt: systemClock.now(),
    onShutdown: async ({ giveUpNode }) => {
      if (giveUpNode) await peer.parts.node?.giveUp()
      // The caller is to have its answer first.
      setImmediate(() => ended.resolve())
    }
  })
  const control = createControlServer({ logger }, { socketPath: environment.socketPath, handlers })
  await using life = new Lifecycle([peer, control])
  signal.throwIfAborted()
  signal.addEventListener('abort', () => ended.resolve(), { once: true })
  await life.start()
  logger.info('ready', { principal: key.principal, name: config.name })
  init.onReady?.()
  await ended.promise
}

/** What a peer is made of on a real machine. */
export function systemParts(environment: Environment, logger: Logger, decorators: PartDecorators = {}) {
  const store = createStore(
    { clock: systemClock, logger, disk: decorators.disk?.(systemDisk) ?? systemDisk },
    { directory: join(environment.stateDirectory, 'store') }
  )
  return {
    store: decorators.store?.(store) ?? store,
    clock: systemClock,
    random: systemRandom,
    logger
  }
}

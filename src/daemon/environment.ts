/**
 * The process's environment as slicenet reads it, typed: where configuration, state, images and the control socket
 * are, and how to print. The one place that looks at `process.env`.
 */
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { LOG_LEVELS, type LogLevel } from '../base/log.ts'

export interface Environment {
  /** Holds `slicenet.yaml`. */
  readonly configDirectory: string
  /** Holds the key, the store and what the node keeps. */
  readonly stateDirectory: string
  readonly imagesDirectory: string
  readonly keyFile: string
  readonly configFile: string
  readonly socketPath: string
  /** Colour is wanted as far as the terminal can show it. */
  readonly color: boolean
  /** What kind of terminal it is, for programs that are lent it. */
  readonly terminalName: string
  /** Print stacks. */
  readonly debug: boolean
  readonly logLevel: LogLevel
}

export interface EnvironmentInit {
  readonly variables?: Readonly<Record<string, string | undefined>>
  readonly uid?: number
  readonly homeDirectory?: string
}

/** `sun_path` holds 108 bytes with the final zero. */
const SOCKET_PATH_BYTES_MAX = 107

/** Throws `CONFIG_INVALID` for an unknown log level. */
export function readEnvironment(init: EnvironmentInit = {}): Environment {
  const variables = init.variables ?? process.env
  // An empty variable counts as unset, as the XDG specification asks.
  const read = (name: string): string | undefined => variables[name] || undefined
  const directories = readDirectories(read, init)
  const logLevel = read('SLICENET_LOG') ?? 'info'
  if (!isLogLevel(logLevel)) {
    throw new SlicenetError('CONFIG_INVALID', `SLICENET_LOG is ${logLevel}`, {
      hint: `set it to one of ${LOG_LEVELS.join(', ')}`
    })
  }
  return {
    ...directories,
    keyFile: join(directories.stateDirectory, 'identity.key'),
    configFile: join(directories.configDirectory, 'slicenet.yaml'),
    terminalName: read('TERM') ?? 'xterm',
    color: read('NO_COLOR') === undefined && read('TERM') !== 'dumb',
    debug: read('SLICENET_DEBUG') !== undefined,
    logLevel
  }
}

type Read = (name: string) => string | undefined
type Directories = Pick<Environment, 'configDirectory' | 'stateDirectory' | 'imagesDirectory' | 'socketPath'>

function readDirectories(read: Read, init: EnvironmentInit): Directories {
  const imagesDirectory = absolute(read('SLICENET_IMAGES'))
  const home = absolute(read('SLICENET_HOME'))
  if (home !== undefined) {
    return {
      configDirectory: home,
      stateDirectory: home,
      imagesDirectory: imagesDirectory ?? join(home, 'images'),
      socketPath: join(home, 'control.sock')
    }
  }
  const user = init.homeDirectory ?? homedir()
  const stateDirectory = join(xdg(read, 'XDG_STATE_HOME') ?? join(user, '.local/state'), 'slicenet')
  const runtime = xdg(read, 'XDG_RUNTIME_DIR')
  const isRoot = (init.uid ?? process.getuid?.()) === 0
  return {
    configDirectory: join(xdg(read, 'XDG_CONFIG_HOME') ?? join(user, '.config'), 'slicenet'),
    stateDirectory,
    imagesDirectory:
      imagesDirectory ?? (isRoot ? '/var/lib/slicenet/images' : join(stateDirectory, 'images')),
    socketPath: join(runtime === undefined ? stateDirectory : join(runtime, 'slicenet'), 'control.sock')
  }
}

/** The XDG specification has relative paths ignored. */
function xdg(read: Read, name: string): string | undefined {
  const path = read(name)
  return path?.startsWith('/') === true ? path : undefined
}

function absolute(path: string | undefined): string | undefined {
  return path === undefined ? undefined : resolve(path)
}

function isLogLevel(text: string): text is LogLevel {
  return (LOG_LEVELS as readonly string[]).includes(text)
}

/** Throws `CONFIG_INVALID` for a path that the kernel would cut off. */
export function requireSocketPath(path: string): string {
  const bytes = Buffer.byteLength(path)
  if (bytes <= SOCKET_PATH_BYTES_MAX) return path
  throw new SlicenetError(
    'CONFIG_INVALID',
    `the control socket's path has ${bytes} bytes, and Unix sockets take ${SOCKET_PATH_BYTES_MAX}: ${path}`,
    { hint: 'set SLICENET_HOME to a shorter path' }
  )
}

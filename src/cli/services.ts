/**
 * What the commands stand on beyond the control socket, wired in one place and loaded when a command first needs it:
 * `--help` must not wait for a network stack.
 */
import type { ControlCaller } from '../daemon/control-client.ts'
import type { Devnet } from '../daemon/devnet.ts'
import { systemDoctor, type DoctorComponents } from '../daemon/doctor.ts'
import type { Environment } from '../daemon/environment.ts'
import type { Images } from '../daemon/images.ts'
import { SlicenetError } from '../base/errors.ts'

export interface EmbeddedPeer {
  readonly call: ControlCaller
  stop(): Promise<void>
}

export interface DaemonInit {
  readonly environment: Environment
  /** Absolute path; absent means the environment's, which need not exist. */
  readonly configFile?: string
  /** Its abort ends the daemon in order. */
  readonly signal: AbortSignal
}

export interface Services {
  /** A peer that lives as long as one command; absent means that only a daemon can serve. */
  readonly startEmbedded?: (init: {
    readonly environment: Environment
    readonly signal: AbortSignal
  }) => Promise<EmbeddedPeer>
  /** Resolves when the daemon has ended in order. */
  readonly runDaemon: (init: DaemonInit) => Promise<void>
  readonly devnet: () => Promise<Devnet>
  readonly images: (environment: Environment) => Promise<Images>
  readonly doctor: DoctorComponents
  /** The TCP ports that this machine's daemon listens on. */
  readonly listenPorts: (environment: Environment) => Promise<readonly number[]>
  readonly now: () => number
}

const DEFAULT_LISTEN_PORTS = [4001]

function notThere(what: string): never {
  throw new SlicenetError('INTERNAL', `${what} is not part of this build`)
}

export const systemServices: Services = {
  runDaemon: async () => notThere('the daemon'),
  devnet: async () => notThere('the devnet'),
  images: async () => notThere('the image store'),
  doctor: systemDoctor,
  listenPorts: async () => DEFAULT_LISTEN_PORTS,
  now: () => Date.now()
}

/**
 * What the commands stand on beyond the control socket, wired in one place and loaded when a command first needs it:
 * `--help` must not wait for a network stack.
 */
import type { DaemonInit } from '../daemon/daemon.ts'
import type { Devnet } from '../daemon/devnet.ts'
import { systemDoctor, type DoctorComponents } from '../daemon/doctor.ts'
import type { EmbeddedPeer } from '../daemon/embedded.ts'
import type { Environment } from '../daemon/environment.ts'
import type { Images } from '../daemon/images.ts'

export interface Services {
  /** A peer that lives as long as one command; absent means that only a daemon can serve. */
  readonly startEmbedded?: (init: {
    readonly environment: Environment
    readonly signal: AbortSignal
  }) => Promise<EmbeddedPeer>
  /** Resolves when the daemon has ended in order. */
  readonly runDaemon: (init: DaemonInit) => Promise<void>
  readonly devnet: (environment: Environment) => Promise<Devnet>
  readonly images: (environment: Environment) => Promise<Images>
  readonly doctor: DoctorComponents
  /** The TCP ports that this machine's daemon listens on. */
  readonly listenPorts: (environment: Environment) => Promise<readonly number[]>
  readonly now: () => number
}

export const systemServices: Services = {
  startEmbedded: async (init) => (await import('../daemon/embedded.ts')).startEmbedded(init),
  runDaemon: async (init) => (await import('../daemon/daemon.ts')).runDaemon(init),
  devnet: async (environment) => (await import('../daemon/devnet.ts')).createDevnet(environment),
  images: async (environment) => (await import('../daemon/images.ts')).createImages(environment),
  doctor: systemDoctor,
  listenPorts: async (environment) =>
    (await import('../daemon/config.ts')).configuredPorts(environment.configFile),
  now: () => Date.now()
}

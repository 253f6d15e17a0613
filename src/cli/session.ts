/** How a command comes to talk to the overlay: through the daemon that runs, or through a peer of its own. */
import { SlicenetError } from '../base/errors.ts'
import { connectControl, createControlClient, type ControlCaller } from '../daemon/control-client.ts'
import type { CommandContext } from './command.ts'

/** What the daemon that runs answers; `undefined` when none does. */
export async function withDaemonIfAny<T>(
  { environment, signal }: CommandContext,
  work: (call: ControlCaller) => Promise<T>
): Promise<T | undefined> {
  const { socketPath } = environment
  try {
    const socket = await connectControl(socketPath, { signal })
    socket.destroy()
  } catch (error) {
    if (error instanceof SlicenetError && error.code === 'DAEMON_UNREACHABLE') return undefined
    throw error
  }
  return work(createControlClient({ socketPath }))
}

/** Throws `DAEMON_UNREACHABLE` when no daemon runs and this build has no embedded peer. */
export async function withSession<T>(
  context: CommandContext,
  work: (call: ControlCaller) => Promise<T>
): Promise<T> {
  const { environment, services, signal } = context
  try {
    const socket = await connectControl(environment.socketPath, { signal })
    socket.destroy()
  } catch (error) {
    const isAbsent = error instanceof SlicenetError && error.code === 'DAEMON_UNREACHABLE'
    if (!isAbsent || services.startEmbedded === undefined) throw error
    context.progress('no daemon runs: starting a peer for this command')
    const peer = await services.startEmbedded({ environment, signal })
    try {
      return await work(peer.call)
    } finally {
      await peer.stop()
    }
  }
  return work(createControlClient({ socketPath: environment.socketPath }))
}

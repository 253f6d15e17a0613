/** How a program uses slicenet: through the daemon of its machine, with the same calls as the command line. */
import { connectControl, createControlClient, type ControlCaller } from '../daemon/control-client.ts'
import type { LeaseView, NodeView, StatusView } from '../daemon/control-protocol.ts'
import { readEnvironment } from '../daemon/environment.ts'
import type { Progress, RenewalView, SliceDescription, SliceView } from '../service/slice.ts'

export interface ClientInit {
  /** Default: the socket of this account's daemon, by `SLICENET_HOME` or the XDG directories. */
  readonly socketPath?: string
}

export interface CallSettings {
  readonly signal?: AbortSignal
}

export interface ProgressSettings extends CallSettings {
  readonly onProgress?: (progress: Progress) => void | Promise<void>
}

/**
 * Calls a daemon. Every call throws `SlicenetError`: `DAEMON_UNREACHABLE` when it went away, else what
 * `docs/errors.md` says; when aborted, the signal's reason.
 */
export interface Client {
  status(settings?: CallSettings): Promise<StatusView>
  /** Nodes that match a CEL query, all when there is none. Throws `QUERY_INVALID`, `NO_MATCH`. */
  find(query?: string, settings?: CallSettings): Promise<NodeView[]>
  /** Resolves when the slice's program runs. Throws `NAME_TAKEN`, `NO_MATCH`, `IMAGE_MISSING`, and refusals. */
  createSlice(description: SliceDescription, settings?: ProgressSettings): Promise<SliceView>
  listSlices(settings?: CallSettings): Promise<SliceView[]>
  /** Throws `NOT_FOUND`. */
  showSlice(name: string, settings?: CallSettings): Promise<SliceView>
  /**
   * Renews its leases to end `durationMs` from now, by default as long as it was made for. Resolves also when some could
   * not be renewed: each member's `reason` says why. Throws `NOT_FOUND`, `BUSY`.
   */
  renewSlice(
    name: string,
    settings?: ProgressSettings & { readonly durationMs?: number }
  ): Promise<RenewalView>
  /** Gives how many members are gone, and the principals of nodes that will be tried again. */
  deleteSlice(
    name: string,
    settings?: ProgressSettings
  ): Promise<{ readonly deleted: number; readonly unreachable: readonly string[] }>
  /** Of a node: the leases on it. Of a researcher's peer: the leases it holds. */
  listLeases(settings?: CallSettings): Promise<LeaseView[]>
  /** Every method of the control socket, streaming ones too. */
  readonly call: ControlCaller
}

/** Makes a client of the daemon that runs. Throws `DAEMON_UNREACHABLE`, `DENIED`, `CONFIG_INVALID`. */
export async function connect(init: ClientInit = {}, settings: CallSettings = {}): Promise<Client> {
  const socketPath = init.socketPath ?? readEnvironment().socketPath
  const socket = await connectControl(socketPath, settings)
  socket.destroy()
  return createClient(createControlClient({ socketPath }))
}

function createClient(call: ControlCaller): Client {
  return {
    call,
    status: (settings) => call('status', {}, settings),
    find: async (query, settings) =>
      (await call('find', query === undefined ? {} : { query }, settings)).nodes,
    createSlice: (description, settings) => call('sliceCreate', description, items(settings)),
    listSlices: async (settings) => (await call('sliceList', {}, settings)).slices,
    showSlice: (slice, settings) => call('sliceShow', { slice }, settings),
    renewSlice: (slice, { durationMs, ...settings } = {}) =>
      call('sliceRenew', { slice, ...(durationMs === undefined ? {} : { durationMs }) }, items(settings)),
    deleteSlice: (slice, settings) => call('sliceDelete', { slice }, items(settings)),
    listLeases: async (settings) => (await call('leaseList', {}, settings)).leases
  }
}

function items({ onProgress, signal }: ProgressSettings = {}): {
  onItem?: NonNullable<ProgressSettings['onProgress']>
  signal?: AbortSignal
} {
  return {
    ...(onProgress === undefined ? {} : { onItem: onProgress }),
    ...(signal === undefined ? {} : { signal })
  }
}

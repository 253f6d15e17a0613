/** How a program uses slicenet: through the daemon of its machine or a peer of its own, with the calls of the command line. */
import {
  connectControl,
  createControlClient,
  findNodes,
  type ControlCaller
} from '../daemon/control-client.ts'
import type { LeaseView, NodeView, StatusView } from '../daemon/control-protocol.ts'
import { readEnvironment } from '../daemon/environment.ts'
import type { Progress, RenewalView, SliceView } from '../service/slice.ts'
import { makeSlice } from './creation.ts'
import { describe, type SliceWish } from './description.ts'
import { discover, type DiscoverSettings, type NodeEvent } from './discovery.ts'
import { plan, type PlanSettings, type SlicePlan } from './plan.ts'
import { progressOptions, Session } from './session.ts'
import { sliceHandle, type SliceHandle } from './slice-handle.ts'

export interface EmbeddedSettings {
  /**
   * Holds its key, its slices and `slicenet.yaml`, if there is one; one process at a time has it. Default: the daemon's,
   * by `SLICENET_HOME` or the XDG directories.
   */
  readonly stateDirectory?: string
  /** Multiaddrs that end in `/p2p/<peer id>`. Default: the configuration's, else the list that comes with the program. */
  readonly bootstrap?: readonly string[]
  /** Takes the peer's log, a line at a time; default nobody. */
  readonly onLog?: (line: string) => void
}

export interface ClientInit {
  /** Default: the socket of this account's daemon, by `SLICENET_HOME` or the XDG directories. */
  readonly socketPath?: string
  /** Starts a peer in this process instead of calling a daemon. */
  readonly embedded?: boolean | EmbeddedSettings
}

export interface CallSettings {
  readonly signal?: AbortSignal
}

export interface ProgressSettings extends CallSettings {
  readonly onProgress?: (progress: Progress) => void | Promise<void>
}

/**
 * Calls a daemon, or a peer of its own. Every call throws `SlicenetError`: `DAEMON_UNREACHABLE` when the daemon went
 * away, `INTERRUPTED` when the client was closed meanwhile, else what `docs/errors.md` says; when aborted, the signal's
 * reason at once. What was begun is then undone in the background; closing an embedded client waits for that.
 */
export interface Client extends AsyncDisposable {
  status(settings?: CallSettings): Promise<StatusView>
  /** Nodes that match a CEL query, all when there is none. Throws `QUERY_INVALID`, `NO_MATCH`. */
  find(query?: string, settings?: CallSettings): Promise<NodeView[]>
  /**
   * The nodes that match, as they come, change and go; each loop over it asks anew, until it is left. Throws
   * `QUERY_INVALID` before the first.
   */
  discover(query?: string, settings?: DiscoverSettings): AsyncIterable<NodeEvent>
  /**
   * What a slice would be made of now, and why the other nodes would not do. Nothing is held. Throws `QUERY_INVALID`,
   * `SLICE_FILE_INVALID`.
   */
  plan(description: SliceWish, settings?: PlanSettings): Promise<SlicePlan>
  /** Resolves when the slice's program runs. Throws `SLICE_FILE_INVALID`, `NAME_TAKEN`, `NO_MATCH`, `IMAGE_MISSING`, and refusals. */
  createSlice(description: SliceWish, settings?: ProgressSettings): Promise<SliceHandle>
  /** A slice that there is. Throws `NOT_FOUND`. */
  slice(name: string, settings?: CallSettings): Promise<SliceHandle>
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
  /** Ends every call and stream, and the embedded peer. Slices go on. Idempotent. */
  close(): Promise<void>
}

/**
 * Makes a client of the daemon that runs, or with `embedded` of a peer that runs until the client is closed. Throws
 * `DAEMON_UNREACHABLE`, `DENIED`, `CONFIG_INVALID`; embedded also `STORE_LOCKED` when a daemon or another client has
 * that state, and `STORE_CORRUPT`.
 */
export async function connect(init: ClientInit = {}, settings: CallSettings = {}): Promise<Client> {
  const { embedded = false, socketPath } = init
  settings.signal?.throwIfAborted()
  if (embedded === false) return createClient(await daemonSession(socketPath, settings))
  if (socketPath !== undefined) throw new TypeError('a client is embedded or has a socket, not both')
  return createClient(await embeddedSession(embedded === true ? {} : embedded, settings))
}

async function daemonSession(given: string | undefined, settings: CallSettings): Promise<Session> {
  const socketPath = given ?? readEnvironment().socketPath
  const socket = await connectControl(socketPath, settings)
  socket.destroy()
  return new Session({ call: createControlClient({ socketPath }) })
}

async function embeddedSession(
  { stateDirectory, bootstrap, onLog = () => {} }: EmbeddedSettings,
  { signal = new AbortController().signal }: CallSettings
): Promise<Session> {
  // Whoever calls a daemon loads no network stack.
  const { startEmbedded } = await import('../daemon/embedded.ts')
  const environment = readEnvironment(
    stateDirectory === undefined ? {} : { variables: { SLICENET_HOME: stateDirectory } }
  )
  const peer = await startEmbedded({
    environment,
    ...(bootstrap === undefined ? {} : { changes: { bootstrap: [...bootstrap] } }),
    writeLog: onLog,
    signal
  })
  return new Session({ call: peer.call, stop: () => peer.stop() })
}

function createClient(session: Session): Client {
  const { call } = session
  return {
    call,
    status: (settings) => call('status', {}, settings),
    find: (query, settings) => findNodes(call, query, settings),
    discover: (query, settings) => discover(session, query, settings),
    plan: (description, settings) => plan(session, description, settings),
    createSlice: async (description, settings) => {
      const view = await makeSlice(session, describe(description), settings)
      return sliceHandle(session, view, { owned: true })
    },
    slice: async (slice, settings) =>
      sliceHandle(session, await call('sliceShow', { slice }, settings), { owned: false }),
    listSlices: async (settings) => (await call('sliceList', {}, settings)).slices,
    showSlice: (slice, settings) => call('sliceShow', { slice }, settings),
    renewSlice: (slice, { durationMs, ...settings } = {}) =>
      call(
        'sliceRenew',
        { slice, ...(durationMs === undefined ? {} : { durationMs }) },
        progressOptions(settings)
      ),
    deleteSlice: (slice, settings) => call('sliceDelete', { slice }, progressOptions(settings)),
    listLeases: async (settings) => (await call('leaseList', {}, settings)).leases,
    close: () => session.close(),
    [Symbol.asyncDispose]: () => session.close()
  }
}

/** Nodes as they come, change and go, for a program that may be slower than they are. */
import { LIMITS } from '../base/limits.ts'
import type { NodeView } from '../daemon/control-protocol.ts'
import { streamed, type ItemBuffer } from './call-stream.ts'
import type { CallSettings } from './client.ts'
import type { Session } from './session.ts'

/**
 * `match`: it is there and matches. `update`: it was told of before and says something new. `expire`: it does not match
 * any more, or nothing was heard of it for as long as its advert was good for; the node as it was last.
 */
export interface NodeEvent {
  readonly type: 'match' | 'update' | 'expire'
  readonly node: NodeView
}

export interface DiscoverSettings extends CallSettings {
  /** Nodes whose news wait for the program, at most; more wait in the peer. Default 1024. */
  readonly bufferMax?: number
}

const BUFFER_MAX = 1024

export function discover(
  session: Session,
  query: string | undefined,
  { signal, bufferMax = BUFFER_MAX }: DiscoverSettings = {}
): AsyncIterable<NodeEvent> {
  if (!Number.isInteger(bufferMax) || bufferMax < 1 || bufferMax > LIMITS.directoryEntriesMax) {
    throw new TypeError(`bufferMax is 1 to ${LIMITS.directoryEntriesMax}, not ${bufferMax}`)
  }
  return streamed({
    start: ({ onItem, signal }) =>
      session.call('discover', query === undefined ? {} : { query }, {
        onItem: ({ event, node }) => onItem({ type: event, node }),
        signal
      }),
    buffer: () => new NodeEventBuffer(bufferMax),
    signal
  })
}

/** What waits of one node is one event, in the place of the first: so many wait as nodes have news, whatever these do. */
export class NodeEventBuffer implements ItemBuffer<NodeEvent> {
  readonly #max: number
  readonly #events = new Map<string, NodeEvent>()

  constructor(max: number) {
    this.#max = max
  }

  get size(): number {
    return this.#events.size
  }

  offer(event: NodeEvent): boolean {
    const { id } = event.node
    const before = this.#events.get(id)
    if (before === undefined && this.#events.size >= this.#max) return false
    const merged = before === undefined ? event : mergeEvents(before, event)
    if (merged === undefined) this.#events.delete(id)
    else this.#events.set(id, merged)
    return true
  }

  take(): NodeEvent | undefined {
    for (const [id, event] of this.#events) {
      this.#events.delete(id)
      return event
    }
    return undefined
  }

  clear(): void {
    this.#events.clear()
  }
}

/** Two events of one node as one to somebody who saw neither; none when it came and went meanwhile. */
function mergeEvents(first: NodeEvent, second: NodeEvent): NodeEvent | undefined {
  // Whoever has not heard of a node does not hear that it is gone.
  if (first.type === 'match') return second.type === 'expire' ? undefined : { ...second, type: 'match' }
  // Gone and back again: to whoever has not heard that it was gone, it is as it is now.
  return second.type === 'match' ? { ...second, type: 'update' } : second
}

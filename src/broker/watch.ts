/**
 * Watching the directory: which nodes begin to match a query, change, and no longer match. A consumer that is slow sees
 * each node as it is when its turn comes, and misses what lay between.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { DirectoryEntry } from '../peer/advert-table.ts'
import type { Directory } from '../peer/directory.ts'
import { compileQuery } from '../query/query.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'

export interface WatchComponents {
  readonly directory: Pick<Directory, 'entries' | 'get' | 'on'>
  readonly clock: Pick<Clock, 'sleep'>
}

export interface NodeEntry extends DirectoryEntry {
  readonly advert: Signed<NodeAdvertisement>
}

/**
 * `match`: a node begins to match. `update`: it says something else of itself, and still matches; that it lives on, and
 * that its coordinate moved a little, is no news. `expire`: it matches no more, or is gone; the entry is the last one
 * known.
 */
export interface WatchEvent {
  readonly type: 'match' | 'update' | 'expire'
  readonly entry: NodeEntry
}

/** The directory drops some adverts without a word, when others take their room. */
const LOOK_INTERVAL_MS = 5000

/**
 * Goes on until it is left or aborted, beginning with the nodes that match now. Throws `QUERY_INVALID` at once, the
 * signal's reason when aborted.
 */
export function watchNodes(
  components: WatchComponents,
  query: string | undefined,
  options: { readonly signal?: AbortSignal } = {}
): AsyncGenerator<WatchEvent, void, undefined> {
  const compiled = query === undefined ? undefined : compileQuery(query)
  const matches = (body: NodeAdvertisement): boolean => compiled === undefined || compiled.matches(body)
  return watch(components, matches, options.signal)
}

async function* watch(
  { directory, clock }: WatchComponents,
  matches: (body: NodeAdvertisement) => boolean,
  signal: AbortSignal | undefined
): AsyncGenerator<WatchEvent, void, undefined> {
  const changed = new Changed(directory, clock)
  const shown = new Map<Principal, NodeEntry>()
  try {
    changed.lookAtAll()
    for (;;) {
      signal?.throwIfAborted()
      const node = changed.take(shown)
      if (node === undefined) {
        if (await changed.wait(signal)) changed.lookForGone(shown)
        continue
      }
      const before = shown.get(node)
      const now = nodeEntry(directory.get(node, 'node'))
      const stays = now !== undefined && matches(now.advert.body)
      if (stays) shown.set(node, now)
      else shown.delete(node)
      // More than the directory holds can only be there when it dropped some.
      if (shown.size > LIMITS.directoryEntriesMax) changed.lookForGone(shown)
      const event = compare(before, now, stays)
      if (event !== undefined) yield event
    }
  } finally {
    changed.close()
  }
}

/** The nodes of which something was heard since they were looked at last: each once, and no more than a bound. */
class Changed {
  readonly #directory: WatchComponents['directory']
  readonly #clock: WatchComponents['clock']
  readonly #nodes = new Set<Principal>()
  readonly #off: readonly (() => void)[]
  #isOverrun = false
  #wake: () => void = () => {}

  constructor(directory: WatchComponents['directory'], clock: WatchComponents['clock']) {
    this.#directory = directory
    this.#clock = clock
    const heard = ({ advert }: DirectoryEntry): void => {
      if (advert.body.role === 'node') this.#add(advert.body.issuer)
    }
    this.#off = [directory.on('update', heard), directory.on('expire', heard)]
  }

  close(): void {
    for (const off of this.#off) off()
  }

  take(shown: ReadonlyMap<Principal, NodeEntry>): Principal | undefined {
    if (this.#isOverrun) {
      this.#isOverrun = false
      this.#nodes.clear()
      this.lookForGone(shown)
      this.lookAtAll()
    }
    const [node] = this.#nodes
    if (node !== undefined) this.#nodes.delete(node)
    return node
  }

  lookAtAll(): void {
    for (const { advert } of this.#directory.entries()) {
      if (advert.body.role === 'node') this.#nodes.add(advert.body.issuer)
    }
  }

  lookForGone(shown: ReadonlyMap<Principal, NodeEntry>): void {
    for (const node of shown.keys()) {
      if (this.#directory.get(node, 'node') === undefined) this.#nodes.add(node)
    }
  }

  /** Resolves when something was heard, with false, or after a while, with true. */
  async wait(signal: AbortSignal | undefined): Promise<boolean> {
    if (this.#nodes.size > 0 || this.#isOverrun) return false
    const woken = new AbortController()
    this.#wake = () => woken.abort(new Error('woken'))
    const until = signal === undefined ? woken.signal : AbortSignal.any([signal, woken.signal])
    try {
      await this.#clock.sleep(LOOK_INTERVAL_MS, { signal: until })
      return true
    } catch {
      return false
    } finally {
      this.#wake = () => {}
    }
  }

  #add(node: Principal): void {
    if (this.#nodes.size < LIMITS.directoryEntriesMax) this.#nodes.add(node)
    // Keys cost nothing: whoever makes many must not fill the memory of those who look on.
    else if (!this.#nodes.has(node)) this.#isOverrun = true
    this.#wake()
  }
}

function nodeEntry(entry: DirectoryEntry | undefined): NodeEntry | undefined {
  return entry?.advert.body.role === 'node' ? (entry as NodeEntry) : undefined
}

function compare(
  before: NodeEntry | undefined,
  now: NodeEntry | undefined,
  stays: boolean
): WatchEvent | undefined {
  if (!stays || now === undefined) return before && { type: 'expire', entry: now ?? before }
  if (before === undefined) return { type: 'match', entry: now }
  return isDeepStrictEqual(said(before), said(now)) ? undefined : { type: 'update', entry: now }
}

/** What a node says of itself, without what changes of itself. */
function said({ advert }: NodeEntry): object {
  const { seq: _seq, notBefore: _from, notAfter: _to, coordinate: _coordinate, ...rest } = advert.body
  return rest
}

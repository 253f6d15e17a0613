/** The roots of the record of flows: signed, kept in the store, and compared with what is on the disk. */
import type { LogExtent, ChainedLog } from '../store/chained-log.ts'
import type { Store } from '../store/store.ts'
import { LIMITS } from '../base/limits.ts'
import { logRootObject, type LogRoot } from '../ticket/log-root.ts'
import type { SigningKey } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'

const ROOTS = 'flow-roots'

export interface LogVerdict {
  /** What is wrong with it; empty when it is what the node signed. */
  readonly faults: readonly string[]
  /** Numbers of the oldest piece that is kept and the newest; the latter is less by one in an empty log. */
  readonly firstPiece: number
  readonly lastPiece: number
  readonly roots: number
  /** Of the last root: when it was signed, UTC ms, and the piece that it vouches for all up to. */
  readonly signedAt?: number
  readonly signedPiece?: number
}

export class FlowRoots {
  readonly #store: Store
  readonly #key: SigningKey
  /** In order. */
  #roots: readonly Signed<LogRoot>[] = []

  private constructor(store: Store, key: SigningKey) {
    this.#store = store
    this.#key = key
  }

  static async open(store: Store, key: SigningKey): Promise<FlowRoots> {
    const roots = new FlowRoots(store, key)
    const found: Signed<LogRoot>[] = []
    for await (const [, bytes] of store.iterate(ROOTS)) found.push(logRootObject.open(bytes))
    roots.#roots = found
    return roots
  }

  last(): Signed<LogRoot> | undefined {
    return this.#roots.at(-1)
  }

  /** Signs how far the log goes. Durable when it resolves; roots of what is dropped go. */
  async sign({ begin, head }: LogExtent, now: number): Promise<Signed<LogRoot>> {
    const before = this.last()?.body
    const seq = Math.max(now, (before?.seq ?? 0) + 1)
    const notBefore = Math.min(before?.notAfter ?? now, seq - 1)
    const interval = { notBefore, notAfter: seq }
    const place = ({ sequence, link }: LogExtent['head']): LogRoot['head'] => ({
      sequence,
      link: Uint8Array.from(link)
    })
    const places = { begin: place(begin), head: place(head) }
    const body: LogRoot = { issuer: this.#key.principal, ...interval, seq, log: 'flows', ...places }
    const root = logRootObject.sign(body, this.#key)
    const all = [...this.#roots, root]
    const kept = all.filter((each) => each === root || each.body.head.sequence > begin.sequence)
    const roots = kept.slice(-LIMITS.flowRootsMax)
    const gone = this.#roots.filter((each) => !roots.includes(each))
    await this.#store.commit([
      { table: ROOTS, key: keyOf(root), value: root.bytes },
      ...gone.map((each) => ({ table: ROOTS, key: keyOf(each), value: null }))
    ])
    this.#roots = roots
    return root
  }

  /** Looks at all of the log; `others` are roots that somebody kept elsewhere. */
  async verify(log: ChainedLog, others: readonly Signed<LogRoot>[] = []): Promise<LogVerdict> {
    const roots = [...this.#roots, ...others]
    const wanted = new Set(roots.flatMap(({ body }) => [body.begin.sequence, body.head.sequence]))
    const { extent, places, fault } = await log.verify(wanted)
    const faults = fault === undefined ? [] : [fault]
    if (others.some(({ body }) => body.issuer !== this.#key.principal))
      faults.push('a root is another node’s')
    for (const { body } of others) {
      if (body.head.sequence >= extent.begin.sequence) continue
      const [signed, begins] = [body.head.sequence, extent.begin.sequence + 1]
      faults.push(
        `not covered by what is kept: a root is of the pieces up to ${signed}, and the oldest that is kept is ${begins}`
      )
    }
    for (const { body } of roots) {
      const { sequence, link } = body.head
      const found = places.get(sequence)
      const when = new Date(body.notAfter).toISOString()
      // What comes after a fault was not looked at.
      if (fault === undefined && sequence > extent.head.sequence) {
        faults.push(
          `cut at its end: at ${when} it had ${sequence} pieces, now it ends with ${extent.head.sequence}`
        )
      } else if (found !== undefined && Buffer.compare(found, link) !== 0) {
        faults.push(`altered: piece ${sequence} or one before it is not what was signed at ${when}`)
      }
    }
    const last = this.last()?.body
    if (last !== undefined && extent.begin.sequence > last.begin.sequence) {
      const begins = extent.begin.sequence + 1
      faults.push(
        `cut at its beginning: it begins with piece ${begins} and should with ${last.begin.sequence + 1}`
      )
    }
    return {
      faults: [...new Set(faults)],
      firstPiece: extent.begin.sequence + 1,
      lastPiece: extent.head.sequence,
      roots: this.#roots.length,
      ...(last === undefined ? {} : { signedAt: last.notAfter, signedPiece: last.head.sequence })
    }
  }
}

/** By number, so that they come in order. */
function keyOf({ body }: Signed<LogRoot>): string {
  return String(body.seq).padStart(16, '0')
}

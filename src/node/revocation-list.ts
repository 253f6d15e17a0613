/** The revocations that a node knows, in memory and in the store: what they name is not redeemed or renewed there. */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Store } from '../store/store.ts'
import { linksFault, type Chain } from '../ticket/chain.ts'
import type { Principal } from '../ticket/principal.ts'
import { reasonError, type Reason } from '../ticket/refusal.ts'
import { hasStanding, revocationFault, revocationObject, type Revocation } from '../ticket/revocation.ts'
import type { Signed } from '../ticket/signed-object.ts'

const TABLE = 'node-revocations'

export class RevocationList {
  readonly #store: Store
  readonly #node: Principal
  readonly #revocations = new Map<string, Signed<Revocation>>()
  /** Ids of those that came from others than the node and its agents since this process began. */
  readonly #foreign = new Set<string>()

  private constructor(store: Store, node: Principal) {
    this.#store = store
    this.#node = node
  }

  static async open(store: Store, node: Principal): Promise<RevocationList> {
    const list = new RevocationList(store, node)
    for await (const [id, bytes] of store.iterate(TABLE))
      list.#revocations.set(id, revocationObject.open(bytes))
    return list
  }

  /**
   * Takes a revocation; durable when it resolves. `chain` shows that its signer has a say: somebody in a chain of this
   * node's. Throws `DENIED`, `TICKET_WRONG_NODE`, `TICKET_EXPIRED`, `QUOTA_EXCEEDED`, and what is wrong with the chain.
   */
  async add(revocation: Signed<Revocation>, chain: Chain | undefined, now: number): Promise<void> {
    const { id, body } = revocation
    if (this.#revocations.has(id)) return
    const fault = this.#fault(revocation, chain, now)
    if (fault !== undefined) throw reasonError(fault)
    const isForeign = body.issuer !== this.#node && chain?.delegation.body.holder !== body.issuer
    if (this.#isFull(body.issuer, isForeign)) {
      throw new SlicenetError('QUOTA_EXCEEDED', 'too many revocations are in force at this node')
    }
    this.#revocations.set(id, revocation)
    if (isForeign) this.#foreign.add(id)
    try {
      await this.#store.commit([{ table: TABLE, key: id, value: revocation.bytes }])
    } catch (error) {
      this.#forget(id)
      throw error
    }
  }

  /** The reason to refuse a chain because of what is revoked. */
  fault(chain: Chain, now: number): Reason | undefined {
    return revocationFault(chain, this.#revocations.values(), now)
  }

  /** Forgets what is over. */
  async tidy(now: number): Promise<void> {
    const over = [...this.#revocations.values()].filter(({ body }) => body.notAfter <= now)
    if (over.length === 0) return
    await this.#store.commit(over.map(({ id }) => ({ table: TABLE, key: id, value: null })))
    for (const { id } of over) this.#forget(id)
  }

  /** The node itself always has room; its agents have most of it, and who bought from them the rest. */
  #isFull(issuer: Principal, isForeign: boolean): boolean {
    if (issuer === this.#node) return false
    const own = [...this.#revocations.values()].filter(({ body }) => body.issuer === issuer)
    return (
      own.length >= LIMITS.revocationsPerPrincipalMax ||
      this.#revocations.size >= LIMITS.revocationsMax ||
      (isForeign && this.#foreign.size >= LIMITS.revocationsOfOthersMax)
    )
  }

  #forget(id: string): void {
    this.#revocations.delete(id)
    this.#foreign.delete(id)
  }

  #fault({ body }: Signed<Revocation>, chain: Chain | undefined, now: number): Reason | undefined {
    if (body.node !== this.#node) {
      return { code: 'TICKET_WRONG_NODE', message: `this revocation is for node ${body.node}` }
    }
    if (body.notAfter <= now) return { code: 'TICKET_EXPIRED', message: 'this revocation is over' }
    if (body.issuer === this.#node) return undefined
    if (chain === undefined)
      return { code: 'DENIED', message: 'nothing shows that you may revoke anything here' }
    const last = chain.tickets.at(-1) ?? chain.delegation
    if (last.body.notAfter <= now) return { code: 'TICKET_EXPIRED', message: 'this chain is over' }
    const fault = linksFault(chain, this.#node)
    if (fault !== undefined || hasStanding(body.issuer, chain)) return fault
    return { code: 'DENIED', message: `${body.issuer} issued no link of this chain` }
  }
}

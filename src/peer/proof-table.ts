/**
 * The proofs of fraud that this peer knows, whichever way they came: each is recomputed before it is kept or passed on,
 * one of each kind and accused is enough, and there are never more than fit.
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import { openBundle, peekBundle, type FraudBundle } from '../ticket/fraud-bundle.ts'
import type { FraudProof } from '../ticket/fraud-proof.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Verdict } from './advert-table.ts'
import { SignerRate } from './signer-rate.ts'

export interface ProofTableComponents {
  readonly clock: Clock
  /** Whether anybody here has to do with a principal: proofs against others make room first. */
  readonly isKnown: (principal: Principal) => boolean
}

/** One that is good for so much longer takes the place of another, so that no short-lived one keeps it out. */
const LONGER_MS = 24 * 3_600_000
const RATED_PEERS_MAX = 1024
const RATE = { burst: LIMITS.proofsPerPeerBurst, perMinute: LIMITS.proofsPerPeerPerMinute }

/** `<kind>/<peer id of the accused>` */
export function proofKey({ kind, accused }: Pick<FraudProof, 'kind' | 'accused'>): string {
  return `${kind}/${accused}`
}

export class ProofTable {
  readonly #components: ProofTableComponents
  /** By key, the oldest first. */
  readonly #bundles = new Map<string, FraudBundle>()
  readonly #rates = new Map<Principal, SignerRate>()
  readonly #listeners = new Set<(bundle: FraudBundle) => void>()
  #bytes = 0

  constructor(components: ProofTableComponents) {
    this.#components = components
  }

  /** Recomputes a bundle and keeps it if it is news. `from` is who brought it; absent for this peer's own. */
  offer(bytes: Uint8Array, from?: Principal): Verdict {
    const verdict = this.#claim(bytes)
    if (verdict !== 'new') return verdict
    if (from !== undefined && !this.#rateOf(from).take(this.#components.clock.monotonic())) return 'too-often'
    let bundle: FraudBundle
    try {
      bundle = openBundle(bytes)
    } catch {
      return 'invalid'
    }
    this.#drop(proofKey(bundle.finding))
    if (!this.#makeRoom(bundle)) return 'full'
    this.#bundles.set(proofKey(bundle.finding), bundle)
    this.#bytes += bytes.length
    for (const listener of this.#listeners) listener(bundle)
    return 'new'
  }

  /** Those that are not over. */
  all(): FraudBundle[] {
    const now = this.#components.clock.now()
    return [...this.#bundles.values()].filter(({ proof }) => proof.body.notAfter > now)
  }

  get(key: string): FraudBundle | undefined {
    const bundle = this.#bundles.get(key)
    return bundle !== undefined && bundle.proof.body.notAfter > this.#components.clock.now()
      ? bundle
      : undefined
  }

  on(listener: (bundle: FraudBundle) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Drops what is over; to be called now and then. */
  sweep(): void {
    const now = this.#components.clock.now()
    for (const [key, { proof }] of this.#bundles) if (proof.body.notAfter <= now) this.#drop(key)
  }

  /** By what it claims, before anything is recomputed: that is dear. */
  #claim(bytes: Uint8Array): Verdict {
    let claim: FraudProof
    try {
      claim = peekBundle(bytes).body
    } catch {
      return 'invalid'
    }
    const now = this.#components.clock.now()
    if (claim.notAfter - claim.notBefore > LIMITS.proofLifeMsMax) return 'invalid'
    if (claim.notAfter <= now) return 'expired'
    if (claim.notBefore > now + LIMITS.advertSkewMsMax) return 'not-yet'
    const known = this.get(proofKey(claim))?.proof.body
    return known !== undefined && claim.notAfter <= known.notAfter + LONGER_MS ? 'known' : 'new'
  }

  #rateOf(peer: Principal): SignerRate {
    const rate = this.#rates.get(peer) ?? new SignerRate(RATE)
    this.#rates.delete(peer)
    this.#rates.set(peer, rate)
    const [oldest] = this.#rates.keys()
    if (this.#rates.size > RATED_PEERS_MAX && oldest !== undefined) this.#rates.delete(oldest)
    return rate
  }

  /** Keys cost nothing, and whoever has one can prove a fraud of its own: those nobody knows go first. */
  #makeRoom({ finding, bytes }: FraudBundle): boolean {
    const { isKnown } = this.#components
    const fits = (): boolean =>
      this.#bundles.size < LIMITS.proofsKeptMax && this.#bytes + bytes.length <= LIMITS.proofsKeptBytesMax
    for (const [key, other] of this.#bundles) {
      if (fits()) return true
      if (!isKnown(other.finding.accused)) this.#drop(key)
    }
    for (const key of isKnown(finding.accused) ? this.#bundles.keys() : []) {
      if (fits()) return true
      this.#drop(key)
    }
    return fits()
  }

  #drop(key: string): void {
    this.#bytes -= this.#bundles.get(key)?.bytes.length ?? 0
    this.#bundles.delete(key)
  }
}

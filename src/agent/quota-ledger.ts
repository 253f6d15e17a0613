/**
 * What principals and organisations hold of an agent, whichever its nodes: their tickets that no node has settled, and
 * what these are for at each instant. Pure.
 */
import { LIMITS } from '../base/limits.ts'
import { byteUnit, cpuUnit, rateUnit, type Unit } from '../base/units.ts'
import type { Claim } from '../ticket/claims.ts'
import type { Interval } from '../ticket/interval.ts'
import { LevelTree } from '../ticket/level-tree.ts'
import type { Principal } from '../ticket/principal.ts'
import { largerResources, NO_RESOURCES, type Resources } from '../ticket/resources.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { Ticket } from '../ticket/ticket.ts'
import { QUOTA_RESOURCES, type Quota, type QuotaResource } from './admission-policy.ts'
import { Ledger, type Profile } from './ledger.ts'

/** A ticket, and the organisation that it counts for beside its holder. */
export interface Counted {
  readonly ticket: Signed<Ticket>
  readonly organisation?: Principal | undefined
}

/** Whose quota it is. */
export type Subject = { readonly principal: Principal } | { readonly organisation: Principal }

/** What is asked for: so much, from when to when, and the line that it goes on with. */
export interface Wanted {
  readonly resources: Resources
  readonly term: Interval
  readonly line: string | undefined
}

const WORDS: Readonly<Record<QuotaResource, readonly [word: string, unit: Unit]>> = {
  cpuMillis: ['cpu', cpuUnit],
  memoryBytes: ['memory', byteUnit],
  diskBytes: ['disk', byteUnit],
  egressBps: ['egress', rateUnit]
}

/** The sums of what quotas are for, and of nothing else. */
class QuotaProfile implements Profile {
  readonly #levels = new LevelTree(QUOTA_RESOURCES.length)

  add(claim: Claim): void {
    if (claim.notBefore < claim.notAfter) this.#levels.raise(amountsOf(claim), claim)
  }

  remove(claim: Claim): void {
    if (claim.notBefore < claim.notAfter) this.#levels.lower(amountsOf(claim), claim)
  }

  peak(window: Interval): Resources {
    const levels = this.#levels.highest(window)
    const amounts = QUOTA_RESOURCES.map((name, index) => [name, levels[index] ?? 0] as const)
    return { ...NO_RESOURCES, ...Object.fromEntries(amounts) }
  }
}

function amountsOf({ resources }: Claim): number[] {
  return QUOTA_RESOURCES.map((name) => resources[name])
}

export class QuotaLedger {
  readonly #ledgers = new Map<string, Ledger>()

  add(counted: Counted): void {
    for (const key of keysOf(counted)) {
      const ledger = this.#ledgers.get(key) ?? new Ledger(new QuotaProfile())
      this.#ledgers.set(key, ledger)
      ledger.add(counted.ticket)
    }
  }

  remove(counted: Counted): void {
    for (const key of keysOf(counted)) {
      const ledger = this.#ledgers.get(key)
      ledger?.remove(counted.ticket)
      if (ledger?.isEmpty === true) this.#ledgers.delete(key)
    }
  }

  /** Which quota one more ticket would go beyond, in words; `undefined` when none. */
  fault(subject: Subject, quota: Quota, { resources, term, line }: Wanted): string | undefined {
    const ledger = this.#ledgers.get(keyOf(subject))
    const whose = 'principal' in subject ? 'per principal' : `per organisation, of ${subject.organisation},`
    const goesOn = line !== undefined && ledger !== undefined && ledger.countOf(line) > 0
    if (goesOn && ledger.countOf(line) >= LIMITS.ticketsPerLineMax) {
      return `${LIMITS.ticketsPerLineMax} tickets that go on with one another are out already`
    }
    const out = ledger?.lineCount ?? 0
    if (quota.tickets !== undefined && !goesOn && out >= quota.tickets) {
      return `the quota of tickets ${whose} is ${quota.tickets}, and ${out} are out`
    }
    const bounded = QUOTA_RESOURCES.filter((name) => quota[name] !== undefined)
    if (bounded.length === 0) return undefined
    const held = ledger?.peak(term, line)
    const own = goesOn ? largerResources(resources, ledger.claimOf(line)) : resources
    const short = bounded.find((name) => (held?.[name] ?? 0) + own[name] > (quota[name] ?? 0))
    if (short === undefined) return undefined
    const [word, unit] = WORDS[short]
    const [most, has, asked] = [quota[short] ?? 0, held?.[short] ?? 0, own[short]].map((one) =>
      unit.format(one)
    )
    return `the quota of ${word} ${whose} is ${most}, of which ${has} are held and ${asked} asked for`
  }
}

function keyOf(subject: Subject): string {
  return 'principal' in subject ? `principal ${subject.principal}` : `organisation ${subject.organisation}`
}

function keysOf({ ticket, organisation }: Counted): string[] {
  const principal = keyOf({ principal: ticket.body.holder })
  return organisation === undefined ? [principal] : [principal, keyOf({ organisation })]
}

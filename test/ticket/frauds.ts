/** Proofs of frauds that keys made for the purpose commit. */
import { bundleFinding, type FraudBundle } from '../../src/ticket/fraud-bundle.ts'
import { equivocation, overIssued, type Finding } from '../../src/ticket/fraud.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import { amounts, delegate, issue, makeKey, NOW } from './fixtures.ts'

const [NODE, HOLDER, FINDER] = [makeKey(), makeKey(), makeKey()]

export interface FraudInit {
  /** An agent; default one made for it. */
  readonly accused?: SigningKey
  /** Default somebody. */
  readonly finder?: SigningKey
  /** UTC ms at which it was found. */
  readonly now?: number
}

/** Two tickets of one sequence number. */
export function equivocating(accused: SigningKey = makeKey()): Finding {
  const parent = delegate(NODE, accused)
  const [one, other] = ['mesh', 'probe'].map((slice) => issue(parent, accused, HOLDER, { slice }))
  const finding = equivocation(asAny(one), asAny(other))
  if (finding === undefined) throw new TypeError('no fraud')
  return finding
}

/** More tickets than the delegation allows, so wordy that they do not fit a message of gossip. */
export function overIssuing(accused: SigningKey = makeKey()): Finding {
  const parent = delegate(NODE, accused, {
    resources: amounts(20),
    ports: [{ protocol: 'tcp', first: 1, last: 65_535 }]
  })
  const tickets = Array.from({ length: 21 }, (_one, index) => {
    const ports = Array.from({ length: 60 }, (_port, at) => {
      const port = 1000 + index * 200 + at * 2
      return { protocol: 'tcp' as const, first: port, last: port }
    })
    return issue(parent, accused, HOLDER, { ports, seq: index + 1 })
  })
  const finding = overIssued(parent, tickets)
  if (finding === undefined) throw new TypeError('no fraud')
  return finding
}

export function proofOf(
  finding: Finding,
  { finder = FINDER, now = NOW }: Pick<FraudInit, 'finder' | 'now'> = {}
): FraudBundle {
  return bundleFinding(finding, finder, { now, seq: 1 })
}

export function fraud({ accused, finder, now }: FraudInit = {}): FraudBundle {
  return proofOf(equivocating(accused), {
    ...(finder === undefined ? {} : { finder }),
    ...(now === undefined ? {} : { now })
  })
}

function asAny(object: Signed<Ticket> | undefined): {
  readonly type: 'ticket'
  readonly object: Signed<Ticket>
} {
  if (object === undefined) throw new TypeError('no ticket')
  return { type: 'ticket', object }
}

/** Bundles of fraud proofs: one for each way to cheat, and such as prove nothing, though every object in them is well signed. */
import type { ErrorCode } from '../../src/base/errors.ts'
import { SlicenetError } from '../../src/base/errors.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import { bundleFinding, openBundle } from '../../src/ticket/fraud-bundle.ts'
import type { FraudKind } from '../../src/ticket/fraud-proof.ts'
import type { Lease } from '../../src/ticket/lease.ts'
import type { PortRange } from '../../src/ticket/ports.ts'
import type { Principal, SigningKey } from '../../src/ticket/principal.ts'
import type { Signed, SignedFields } from '../../src/ticket/signed-object.ts'
import { surrenderObject } from '../../src/ticket/surrender.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import {
  HOUR,
  NOW,
  advertise,
  amounts,
  delegate,
  issue,
  lease as leaseOf,
  makeKey
} from '../ticket/fixtures.ts'

interface Case {
  readonly name: string
  readonly why: string
  readonly kind: FraudKind
  readonly accused: Principal
  readonly evidence: readonly Signed<SignedFields>[]
  readonly code?: ErrorCode
}

const [node, agent, other, holder, friend, finder] = [
  makeKey(),
  makeKey(),
  makeKey(),
  makeKey(),
  makeKey(),
  makeKey()
]
const PROVES_NOTHING = { code: 'PROOF_INVALID' } as const
const port = (first: number): PortRange[] => [{ protocol: 'tcp', first, last: first }]
const delegation = delegate(node, agent)
const ticket = (seq: number, factor: number, changes: Partial<Ticket> = {}): Signed<Ticket> =>
  issue(delegation, agent, holder, { seq, resources: amounts(factor), ports: [], ...changes })

function issued(): Case[] {
  const common = { kind: 'over-issued' as const, accused: agent.principal }
  const [one, two] = [ticket(1, 6), ticket(2, 6)]
  const next = delegate(node, agent, { seq: 2, counts: [one.id] })
  const under = issue(next, agent, holder, { seq: 3, resources: amounts(6), ports: [] })
  const wholesale = ticket(4, 2)
  const cut = [5, 6].map((seq) =>
    issue(wholesale, holder, friend, { seq, resources: amounts(1), ports: [], canDelegate: false })
  )
  const tooMuch = issue(wholesale, holder, friend, { seq: 7, resources: amounts(1), ports: [] })
  const doubled = delegate(node, agent, { overbookPercent: 120 })
  const renewed = ticket(2, 6, { supersedes: one.id, notAfter: NOW + 2 * HOUR })
  const renewedAgain = ticket(3, 6, { supersedes: one.id, notAfter: NOW + 3 * HOUR })
  return [
    { ...common, name: 'more in sum', why: '6 + 6 of 10 at one instant', evidence: [delegation, one, two] },
    {
      ...common,
      name: 'more beside what counts',
      why: 'the newer delegation counts the ticket under the older one',
      evidence: [next, one, under]
    },
    {
      ...common,
      name: 'more in one ticket',
      why: 'a ticket for more than its parent has',
      evidence: [delegation, ticket(1, 11)]
    },
    {
      ...common,
      name: 'one port twice',
      why: 'the same port to two holders at one instant',
      evidence: [
        delegation,
        ticket(1, 1, { ports: port(20_000) }),
        issue(delegation, agent, friend, { seq: 2, ports: port(20_000) })
      ]
    },
    {
      ...common,
      name: 'more than a wholesale ticket has',
      why: 'who holds it cut three of it where there is room for two',
      accused: holder.principal,
      evidence: [wholesale, ...cut, tooMuch]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'just as much as may be',
      why: '4 + 6 of 10',
      evidence: [delegation, ticket(1, 4), two]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'overbooking that was allowed',
      why: '6 + 6 of 10, of which 12 may be issued',
      evidence: [
        doubled,
        ...[1, 2].map((seq) => issue(doubled, agent, holder, { seq, resources: amounts(6), ports: [] }))
      ]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'one after the other',
      why: 'the second begins when the first ends',
      evidence: [delegation, one, ticket(2, 6, { notBefore: one.body.notAfter, notAfter: NOW + 2 * HOUR })]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'tickets of one line',
      why: 'the first ticket of a line and its second renewal count once, although neither names the other',
      evidence: [delegation, one, renewed, renewedAgain]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'what only counts',
      why: 'the node counts too much already, and the agent issued nothing more',
      evidence: [
        delegate(node, agent, { seq: 2, resources: amounts(5), counts: [one.id, two.id].sort() }),
        one,
        two
      ]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'a ticket of somebody else',
      why: 'one of the two is not signed by the holder of the delegation',
      evidence: [delegation, one, issue(delegation, friend, holder, { resources: amounts(6), ports: [] })]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'the accused is another',
      why: 'the evidence shows the agent, the proof accuses its holder',
      accused: holder.principal,
      evidence: [delegation, one, two]
    }
  ]
}

function equivocations(): Case[] {
  const common = { kind: 'equivocation' as const, accused: agent.principal }
  const elsewhere = delegate(friend, agent)
  return [
    {
      ...common,
      name: 'one number, two tickets',
      why: 'the same seq for one node',
      evidence: [ticket(1, 1), ticket(1, 2)]
    },
    {
      ...common,
      name: 'one number, two delegations',
      why: 'the same seq for two agents',
      accused: node.principal,
      evidence: [delegation, delegate(node, other)]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'tickets for two nodes',
      why: 'tickets are numbered for each node',
      evidence: [ticket(1, 1), issue(elsewhere, agent, holder, { seq: 1, ports: [] })]
    }
  ]
}

const advert = (percent: number): Signed<NodeAdvertisement> => advertise(node, percent)

function delegated(): Case[] {
  const common = { kind: 'over-delegated' as const, accused: node.principal }
  const second = delegate(node, other, { seq: 2, resources: amounts(5) })
  return [
    {
      ...common,
      name: 'more than was declared',
      why: '10 + 5 of 10, of which 149 percent were declared',
      evidence: [advert(149), delegation, second]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'what was declared',
      why: '10 + 5 of 10, of which 150 percent were declared',
      evidence: [advert(150), delegation, second]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'one that replaces another',
      why: 'of one agent the largest counts alone',
      evidence: [advert(100), delegation, delegate(node, agent, { seq: 3 })]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'a later epoch',
      why: 'the node began anew after the advert, with another policy',
      evidence: [advert(100), delegation, delegate(node, other, { seq: 2, epoch: 2 })]
    }
  ]
}

const lease = (seq: number, by: SigningKey, changes: Partial<Lease> = {}): Signed<Lease> =>
  leaseOf(node, by, seq, changes)

function leased(): Case[] {
  const common = { kind: 'port-leased-twice' as const, accused: node.principal }
  const first = lease(1, holder)
  const surrender = (by: SigningKey): Uint8Array => {
    const term = { notBefore: NOW, notAfter: NOW + HOUR }
    const body = { issuer: by.principal, ...term, seq: 1, node: node.principal }
    return surrenderObject.sign({ ...body, lease: first.id, vserver: first.body.vserver }, by).bytes
  }
  return [
    {
      ...common,
      name: 'a port leased twice',
      why: 'to two at one instant',
      evidence: [first, lease(2, friend)]
    },
    {
      ...common,
      name: 'a surrender by another',
      why: 'it is not signed by the holder of the first lease',
      evidence: [first, lease(2, friend, { released: [surrender(friend)] })]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'a port that was given up',
      why: 'the second lease has the surrender of the first',
      evidence: [first, lease(2, friend, { released: [surrender(holder)] })]
    },
    {
      ...common,
      ...PROVES_NOTHING,
      name: 'a renewal',
      why: 'both are for the same virtual machine of the same holder',
      evidence: [first, lease(2, holder, { vserver: 'mesh-1', prev: first.id })]
    }
  ]
}

/** As the vectors file has them; throws if one is not what it is named. */
export function fraudCases(): object[] {
  return [...issued(), ...equivocations(), ...delegated(), ...leased()].map(
    ({ name, why, kind, accused, evidence, code }) => {
      const finding = { kind, accused, message: why, evidence }
      const { proof, bytes } = bundleFinding(finding, finder, { now: NOW, seq: 1 })
      if (found(bytes) !== code) throw new Error(`${kind}, ${name}: ${found(bytes) ?? 'proven'}`)
      const bundle = Buffer.from(bytes).toString('hex')
      const common = { name, valid: code === undefined, why, kind, accused, id: proof.id, bundle }
      return code === undefined ? common : { ...common, code }
    }
  )
}

function found(bundle: Uint8Array): ErrorCode | undefined {
  try {
    openBundle(bundle)
    return undefined
  } catch (error) {
    if (error instanceof SlicenetError) return error.code
    throw error
  }
}

/** Chains of tickets, good ones and one for each fault that the chain check knows, every link well signed. */
import type { ErrorCode } from '../../src/base/errors.ts'
import { chainFault, type Chain } from '../../src/ticket/chain.ts'
import type { Delegation } from '../../src/ticket/delegation.ts'
import { RESOURCE_NAMES } from '../../src/ticket/resources.ts'
import { ticketObject, type Ticket } from '../../src/ticket/ticket.ts'
import { HOUR, NOW, amounts, delegate, issue, makeKey } from '../ticket/fixtures.ts'

const [node, agent, reseller, holder, stranger] = [makeKey(), makeKey(), makeKey(), makeKey(), makeKey()]

interface Asked {
  readonly node: string
  readonly holder: string
  readonly now: number
}
interface Case {
  readonly name: string
  readonly why: string
  readonly code?: ErrorCode
  /** What the fault must say. */
  readonly says?: RegExp
  readonly chain: Chain
  readonly asked?: Partial<Asked>
}

/** node → agent → reseller → holder. */
function chainWith(
  leaf: Partial<Ticket>,
  middle: Partial<Ticket> = {},
  root: Partial<Delegation> = {}
): Chain {
  const delegation = delegate(node, agent, root)
  const between = issue(delegation, agent, reseller, { resources: amounts(2), ...middle })
  return { delegation, tickets: [between, issue(between, reseller, holder, leaf)] }
}

/** What a ticket says without its slice. */
function wholesaleOf(ticket: ReturnType<typeof issue>): Ticket {
  const { slice: _any, ...body } = ticket.body
  return body
}

function wholesaleChain(): Chain {
  const delegation = delegate(node, agent)
  const body = wholesaleOf(issue(delegation, agent, reseller, { resources: amounts(2) }))
  const wholesale = ticketObject.sign(body, agent)
  return { delegation, tickets: [wholesale, issue(wholesale, reseller, holder)] }
}

function good(): Case[] {
  const delegation = delegate(node, agent)
  return [
    {
      name: 'one link',
      why: 'the agent granted to the holder',
      chain: { delegation, tickets: [issue(delegation, agent, holder)] }
    },
    { name: 'two links', why: 'a reseller stands between', chain: chainWith({}) },
    {
      name: 'the last instant',
      why: 'redeemBefore itself is too late, a millisecond earlier is not',
      chain: chainWith({}),
      asked: { now: NOW + 299_999 }
    },
    {
      name: 'a wholesale link',
      why: 'the reseller has a ticket for no slice yet, and cuts one for a slice from it',
      chain: wholesaleChain()
    },
    {
      name: 'a leaf that may not be delegated',
      why: 'canDelegate matters only for what is cut from a ticket',
      chain: chainWith({ canDelegate: false })
    }
  ]
}

function wrongLinks(): Case[] {
  const code = 'CHAIN_INVALID'
  const delegation = delegate(node, agent)
  const foreign = delegate(stranger, agent)
  const whole = chainWith({})
  const sold = wholesaleChain()
  const wholesale = { ...sold, tickets: sold.tickets.slice(0, 1) }
  return [
    {
      name: 'no ticket',
      why: 'a delegation alone',
      code,
      says: /no ticket/,
      chain: { delegation, tickets: [] }
    },
    {
      name: 'another node',
      why: 'the last ticket is for another node',
      code: 'TICKET_WRONG_NODE',
      says: /not for/,
      chain: chainWith({ node: stranger.principal })
    },
    {
      name: 'presented to another node',
      why: 'every ticket is for another node than the one asked',
      code: 'TICKET_WRONG_NODE',
      says: /not for/,
      chain: whole,
      asked: { node: stranger.principal }
    },
    {
      name: "another node's delegation",
      why: 'the delegation is not of the node that the tickets name',
      code,
      says: /does not begin/,
      chain: { delegation: foreign, tickets: [issue(foreign, agent, holder, { node: node.principal })] }
    },
    {
      name: 'too many links',
      why: 'two tickets where the delegation allows one',
      code,
      says: /may have 1/,
      chain: chainWith({}, {}, { maxDepth: 1 })
    },
    {
      name: 'another parent',
      why: 'the last ticket names another link than the one before it',
      code,
      says: /not cut from/,
      chain: chainWith({ parent: delegation.id })
    },
    {
      name: 'a link left out',
      why: 'the ticket in the middle is missing',
      code,
      says: /not cut from/,
      chain: { delegation: whole.delegation, tickets: whole.tickets.slice(1) }
    },
    {
      name: 'links in the wrong order',
      why: 'the tickets are turned round',
      code,
      says: /not cut from/,
      chain: { delegation: whole.delegation, tickets: [...whole.tickets].reverse() }
    },
    {
      name: 'an issuer who holds nothing',
      why: 'issued by somebody who does not hold the link before',
      code,
      says: /does not hold/,
      chain: { delegation, tickets: [issue(delegation, stranger, holder)] }
    },
    {
      name: 'cut from what may not be delegated',
      why: 'the link before has canDelegate false',
      code,
      says: /may not be delegated/,
      chain: chainWith({}, { canDelegate: false })
    },
    {
      name: 'another slice',
      why: 'for another slice than the link before',
      code,
      says: /another slice/,
      chain: chainWith({ slice: 'other' })
    },
    {
      name: 'no slice',
      why: 'a wholesale ticket is presented itself',
      code,
      says: /without a slice/,
      chain: wholesale,
      asked: { holder: reseller.principal }
    },
    {
      name: 'another holder',
      why: 'presented by somebody else than its holder',
      code: 'TICKET_WRONG_HOLDER',
      says: /not for/,
      chain: whole,
      asked: { holder: stranger.principal }
    }
  ]
}

function tooMuch(): Case[] {
  const exceeding = (name: string, why: string, says: RegExp, chain: Chain): Case => ({
    name,
    why,
    code: 'TICKET_EXCEEDS_PARENT',
    says,
    chain
  })
  const port = (protocol: 'tcp' | 'udp', first: number, last: number) => ({
    ports: [{ protocol, first, last }]
  })
  return [
    ...RESOURCE_NAMES.map((name) =>
      exceeding(
        `more ${name}`,
        `one more of ${name} than the link before`,
        new RegExp(`^${name} is`),
        chainWith({ resources: { ...amounts(2), [name]: amounts(2)[name] + 1 } })
      )
    ),
    exceeding(
      'more than the delegation',
      'the first ticket has more than the delegation',
      /^cpuMillis is/,
      chainWith({}, { resources: amounts(11) })
    ),
    exceeding(
      'a longer term',
      'ends after the link before',
      /the term/,
      chainWith({ notAfter: NOW + HOUR + 1 })
    ),
    exceeding(
      'an earlier term',
      'begins before the link before',
      /the term/,
      chainWith({ notBefore: NOW - 60_001 })
    ),
    exceeding(
      'a port that the link before lacks',
      'a port beside the range of the link before',
      /not among the ports/,
      chainWith(port('tcp', 20_001, 20_001))
    ),
    exceeding(
      'a range that reaches beyond',
      'one port of two is not of the link before',
      /not among the ports/,
      chainWith(port('tcp', 20_000, 20_001))
    ),
    exceeding(
      'the port of another protocol',
      'the same number, but of UDP',
      /not among the ports/,
      chainWith(port('udp', 20_000, 20_000))
    ),
    exceeding(
      'a right that the link before lacks',
      'raw-socket, which was not given',
      /no right raw-socket/,
      chainWith({ rights: ['raw-socket'] })
    ),
    exceeding(
      'a longer hold',
      'redeemBefore is later than that of the link before',
      /the hold/,
      chainWith({ redeemBefore: NOW + 300_001 })
    )
  ]
}

function rightsTogether(): Case[] {
  const rights = ['raw-socket', 'administrative', 'cap-net-raw'] as const
  const chainOf = (leaf: Partial<Ticket>): Chain =>
    chainWith(leaf, { rights: [...rights] }, { rights: [...rights] })
  const broken = (name: string, why: string, says: RegExp, leaf: Partial<Ticket>): Case => ({
    name,
    why,
    code: 'CHAIN_INVALID',
    says,
    chain: chainOf(leaf)
  })
  return [
    {
      name: 'an administrative slice with a capability',
      why: 'no ports, and no raw-socket; the link before has them all, for others to be cut from',
      chain: chainOf({ rights: ['administrative', 'cap-net-raw'], ports: [] })
    },
    broken('a capability alone', 'cap-net-raw without administrative', /needs the right administrative/, {
      rights: ['cap-net-raw'],
      ports: []
    }),
    broken('an administrative slice with raw-socket', 'it has no network of its own', /no network/, {
      rights: ['administrative', 'raw-socket'],
      ports: []
    }),
    broken('an administrative slice with a port', 'it has no network of its own', /own no ports/, {
      rights: ['administrative']
    })
  ]
}

function wrongTimes(): Case[] {
  const late = NOW + 2 * HOUR
  const long = { notAfter: late, redeemBefore: late }
  return [
    {
      name: 'a hold that is over',
      why: 'asked at redeemBefore',
      code: 'TICKET_EXPIRED',
      says: /redeemed before/,
      chain: chainWith({}),
      asked: { now: NOW + 300_000 }
    },
    {
      name: 'a term that is over',
      why: 'asked at notAfter, though the hold lasts',
      code: 'TICKET_EXPIRED',
      says: /ended/,
      chain: chainWith({ notAfter: NOW + 1000 }),
      asked: { now: NOW + 1000 }
    },
    {
      name: 'a term that has not begun',
      why: 'asked a millisecond before notBefore',
      code: 'TICKET_NOT_YET_VALID',
      says: /begins/,
      chain: chainWith({ notBefore: NOW + 1 })
    },
    {
      // The terms of tickets lie within the delegation's, so this is found by the ticket's own term first.
      name: 'a delegation that is over',
      why: 'asked when delegation and tickets are over together',
      code: 'TICKET_EXPIRED',
      says: /redeemed before/,
      chain: chainWith(long, long, { notAfter: late }),
      asked: { now: late }
    }
  ]
}

/** As JSON: envelopes in hex, who presents them to whom and when, and the code of the fault. */
export function chainCases(): object[] {
  return [...good(), ...wrongLinks(), ...tooMuch(), ...rightsTogether(), ...wrongTimes()].map(
    ({ name, why, code, says, chain, asked }) => {
      const presentation = { node: node.principal, holder: holder.principal, now: NOW, ...asked }
      const found = chainFault(chain, presentation)
      if (found?.code !== code || (says !== undefined && !says.test(found?.message ?? ''))) {
        throw new Error(`${name}: ${found === undefined ? 'no fault' : `${found.code}, ${found.message}`}`)
      }
      return {
        name,
        valid: code === undefined,
        why,
        ...presentation,
        delegation: Buffer.from(chain.delegation.bytes).toString('hex'),
        tickets: chain.tickets.map(({ bytes }) => Buffer.from(bytes).toString('hex')),
        ...(code === undefined ? {} : { code, evidence: found?.evidence ?? [] })
      }
    }
  )
}

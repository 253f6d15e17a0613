/** Agents that lie about what they hold: the broker bears it, and has what the honest ones grant. */
import test from 'ava'
import type { Grant, Offer } from '../../src/protocol/agent-protocol.ts'
import type { Call } from '../../src/protocol/method.ts'
import { delegationObject } from '../../src/ticket/delegation.ts'
import { RefusalSigner } from '../../src/ticket/refusal-signer.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
import { HOUR, NOW, amounts, delegate, issue, makeKey } from '../ticket/fixtures.ts'
import { nodeAdvert } from './adverts.ts'
import { lab, replace, type Lab } from './broker-lab.ts'

type Emit = Call<Offer, never>['emit']

/** What a liar says it holds of each node: more than anybody. */
function boast(one: Lab): Offer[] {
  return one.adverts.map(({ bytes }) => ({
    advert: bytes,
    available: amounts(1000),
    until: NOW + 1000 * HOUR,
    reliability: 1000
  }))
}

/** The first agent says what `offers` gives, and answers with `grants`; the second one is honest. */
function lying(
  one: Lab,
  offers: (emit: Emit) => Promise<void>,
  grants?: (honest: Grant[]) => Grant[]
): { asked: number } {
  const counts = { asked: 0 }
  const honest = one.handlers.get(one.agents[0]?.principal ?? '')
  replace(one, 0, {
    async getAds(_params, { emit }) {
      await offers(emit)
      return { ratings: [] }
    },
    async getTickets(params, call) {
      counts.asked += params.requests.length
      const answer = await honest?.getTickets(params, call)
      return { grants: grants?.(answer?.grants ?? []) ?? answer?.grants ?? [] }
    }
  })
  return counts
}

function refusals(one: Lab): (honest: Grant[]) => Grant[] {
  const key = one.agents[0] ?? one.holder
  const signer = new RefusalSigner(key, () => NOW)
  return (honest) =>
    honest.map(({ node }) => ({
      node,
      refusal: signer.sign({ code: 'NOT_FOUND', message: 'no delegation of it is held' }, node).bytes
    }))
}

async function boasting(one: Lab, emit: Emit): Promise<void> {
  for (const offer of boast(one)) await emit(offer)
}

test('an agent that offers most and grants nothing is asked for a bounded number, and others grant', async (t) => {
  const one = await lab(6, 2)
  const counts = lying(one, (emit) => boasting(one, emit), refusals(one))
  const search = one.search(6)
  const holdings = await one.broker.getTickets(search)
  t.is(holdings.length, 6)
  t.true(holdings.every(({ agent }) => agent === one.agents[1]?.principal))
  t.true(counts.asked <= 6, `asked for ${counts.asked}`)
})

test('an agent that offers nodes which it has no delegation of loses those and no others', async (t) => {
  const one = await lab(4, 2)
  const stranger = nodeAdvert(makeKey(), { agents: [one.agents[0]?.principal ?? ''] })
  one.adverts.push(stranger)
  lying(one, (emit) => boasting(one, emit))
  const search = one.search(5)
  const holdings = await one.broker.getTickets(search)
  t.is(holdings.length, 4)
  t.false(holdings.some(({ node }) => node === stranger.body.issuer))
  t.true(search.failed.has({ node: stranger.body.issuer, agent: one.agents[0]?.principal ?? '' }))
})

test('an offer of a node that nobody knows, or by a forged advert, makes no member', async (t) => {
  const one = await lab(2, 2)
  const [first] = boast(one)
  lying(
    one,
    async (emit) => {
      const unknown = nodeAdvert(makeKey())
      if (first === undefined) return
      await emit({ ...first, advert: unknown.bytes })
      await emit({ ...first, advert: new Uint8Array(100) })
    },
    refusals(one)
  )
  const holdings = await one.broker.getTickets(one.search(3))
  t.is(holdings.length, 2)
})

test.serial('an agent that offers without end is given up, and others grant', async (t) => {
  const one = await lab(2, 2, 500)
  const [first] = boast(one)
  const over = new AbortController()
  t.teardown(() => over.abort())
  lying(
    one,
    async (emit) => {
      // As over a network: each comes with a turn of its own.
      while (!over.signal.aborted) {
        if (first !== undefined) await emit(first)
        await new Promise((resolve) => setImmediate(resolve))
      }
    },
    refusals(one)
  )
  t.is((await one.broker.getTickets(one.search(2))).length, 2)
})

const answers: Readonly<Record<string, (honest: Grant[], one: Lab) => Grant[]>> = {
  'the tickets of one node for another': (honest) => honest.toReversed(),
  'one ticket for all': (honest) => honest.map(() => honest[0]).filter((one) => one !== undefined),
  nothing: () => [],
  'fewer than were asked for': (honest) => honest.slice(0, 1),
  'more than were asked for': (honest) => [...honest, ...honest].slice(0, 32),
  'neither ticket nor refusal': (honest) => honest.map(({ node }) => ({ node })),
  'a ticket below the delegation of another node': (honest, one) => foreign(honest, one, false),
  'a ticket cut from a delegation that it made itself': (honest, one) => foreign(honest, one, true)
}
for (const [name, answer] of Object.entries(answers)) {
  test(`an agent that answers with ${name} costs nothing but its answer`, async (t) => {
    const one = await lab(4, 2)
    lying(
      one,
      (emit) => boasting(one, emit),
      (honest) => answer(honest, one)
    )
    const holdings = await one.broker.getTickets(one.search(4))
    t.is(holdings.length, 4)
    t.is(new Set(holdings.map(({ node }) => node)).size, 4)
    for (const { node, agent, chain } of holdings) {
      const [delegation = new Uint8Array(), ...tickets] = chain
      t.is(delegationObject.open(delegation).body.issuer, node)
      const leaf = ticketObject.open(tickets.at(-1) ?? new Uint8Array()).body
      t.like(leaf, { node, issuer: agent, holder: one.holder.principal, slice: 'mesh' })
    }
  })
}

/** Tickets that look as asked for, of delegations that no node of theirs made. */
function foreign(honest: readonly Grant[], one: Lab, isOwn: boolean): Grant[] {
  const liar = one.agents[0] ?? one.holder
  return honest.map(({ node }) => {
    const delegation = delegate(isOwn ? liar : makeKey(), liar)
    const ticket = issue(delegation, liar, one.holder, { ports: [], node })
    return { node, chain: [delegation.bytes, ticket.bytes] }
  })
}

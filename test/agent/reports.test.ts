/** What an agent learns from receipts, and tells. */
import test from 'ava'
import { Ratings } from '../../src/agent/ratings.ts'
import type { Offer, Rating } from '../../src/protocol/agent-protocol.ts'
import type { AnyObject } from '../../src/ticket/any-object.ts'
import { refusalObject } from '../../src/ticket/refusal.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import { nodeAdvert } from '../broker/adverts.ts'
import { HOUR, NOW, demand, makeKey } from '../ticket/fixtures.ts'
import { agentLab, ask, handOver, request, ticketOf, type AgentLab } from './agent-lab.ts'

const node = makeKey()
const holder = makeKey()

async function ready(cheats = new Set<string>(), seen: AnyObject[] = []): Promise<AgentLab> {
  const lab = await agentLab(
    {},
    {
      advertOf: () => nodeAdvert(node),
      isProven: (principal) => cheats.has(principal),
      observe: (object) => void seen.push(object)
    }
  )
  await handOver(lab, node)
  return lab
}

function refusalOf(ticket: Signed<Ticket>): { redeem: Uint8Array; refusal: Uint8Array } {
  const redeem = demand(ticket, holder)
  const refusal = refusalObject.sign(
    {
      issuer: node.principal,
      notBefore: NOW,
      notAfter: NOW + HOUR,
      seq: 1,
      code: 'OVERBOOKED',
      message: 'full',
      request: redeem.id,
      evidence: []
    },
    node
  )
  return { redeem: redeem.bytes, refusal: refusal.bytes }
}

async function offers(lab: AgentLab): Promise<{ offers: Offer[]; ratings: Rating[] }> {
  const all: Offer[] = []
  const onItem = (offer: Offer): void => void all.push(offer)
  const { ratings } = await lab.as(holder.principal)('getAds', {}, { onItem })
  return { offers: all, ratings }
}

test('a receipt counts once, also after a restart, and is told with the offer', async (t) => {
  const seen: AnyObject[] = []
  const lab = await ready(new Set(), seen)
  const receipts = [refusalOf(ticketOf((await ask(lab, holder, request(node)))[0]))]
  t.is((await offers(lab)).offers[0]?.reliability, 500)
  await lab.as(holder.principal)('report', { receipts })
  t.is((await offers(lab)).offers[0]?.reliability, 333)
  await lab.as(holder.principal)('report', { receipts: [...receipts, ...receipts] })
  const again = await lab.restart()
  await again.as(holder.principal)('report', { receipts })
  t.is((await offers(again)).offers[0]?.reliability, 333)
  t.deepEqual(
    seen.map(({ type }) => type),
    ['delegation', 'redeem', 'refusal']
  )
})

test('receipts of tickets that are not this agent’s are passed over', async (t) => {
  const lab = await ready()
  const strange = ticketOf((await ask(await ready(), holder, request(node)))[0])
  await lab.as(holder.principal)('report', { receipts: [refusalOf(strange)] })
  t.is((await offers(lab)).offers[0]?.reliability, 500)
})

test('a node that was shown to cheat is not offered, and nothing of it is granted', async (t) => {
  const cheats = new Set<string>()
  const lab = await ready(cheats)
  t.is((await offers(lab)).offers.length, 1)
  cheats.add(node.principal)
  t.is((await offers(lab)).offers.length, 0)
  const [refused] = await ask(lab, holder, request(node))
  t.true(refused !== undefined && 'refusal' in refused)
})

test('ratings are bounded: who was heard of longest ago is forgotten, on the disk too', (t) => {
  const ratings = new Ratings({ isProven: (principal) => principal === 'cheat' }, { ratedMax: 2 })
  ratings.add('agent', 'a', 'kept', NOW)
  ratings.add('agent', 'cheat', 'kept', NOW)
  ratings.add('agent', 'a', 'kept', NOW)
  const entries = ratings.add('agent', 'b', 'broken', NOW)
  t.deepEqual(
    entries.map(({ key, value }) => [key, value === null]),
    [
      ['agent b', false],
      ['agent cheat', true]
    ]
  )
  t.deepEqual(ratings.agents(NOW), [
    { agent: 'a', reliability: 750 },
    { agent: 'b', reliability: 333 }
  ])
  t.is(ratings.of('agent', 'cheat', NOW), 0)
  t.is(ratings.of('node', 'a', NOW), 500, 'a node and an agent of one name are two')
})

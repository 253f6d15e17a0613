/** An agent that grants from what it got of another agent. */
import test from 'ava'
import { silentLogger, type Logger } from '../../src/base/log.ts'
import type { Purchase, Supplier } from '../../src/agent/purchases.ts'
import { openWholesale } from '../../src/agent/wholesale.ts'
import type { Caller } from '../../src/protocol/method.ts'
import type { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import { chainFault } from '../../src/ticket/chain.ts'
import { delegationObject } from '../../src/ticket/delegation.ts'
import { overIssued } from '../../src/ticket/fraud.ts'
import { refusalObject } from '../../src/ticket/refusal.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import { lineOf, ticketObject, type Ticket } from '../../src/ticket/ticket.ts'
import { settle } from '../base/manual-clock.ts'
import { nodeAdvert } from '../broker/adverts.ts'
import { nodeLab } from '../node/node-lab.ts'
import { HOUR, NOW, amounts, delegate, demand, issue, makeKey } from '../ticket/fixtures.ts'
import { POLICY, agentLab, ask, handOver, outcome, request, type AgentLab } from './agent-lab.ts'

const node = makeKey()
const holder = makeKey()
const buyerKey = makeKey()

const wanted: Purchase = request(node, {
  resources: amounts(4),
  durationMs: 3 * HOUR,
  ports: [{ protocol: 'tcp' }]
})

interface Market {
  readonly seller: AgentLab
  readonly buyer: AgentLab
}

/** A seller that a node delegates to, and a buyer that is its partner, at one clock. */
async function market(
  changes: { partner?: boolean; maxDepth?: number; isProven?: boolean } = {}
): Promise<Market> {
  const partners = changes.partner === false ? [] : [{ principal: buyerKey.principal }]
  const seller = await agentLab({ policy: { ...POLICY.policy, partners } })
  await handOver(seller, node, { maxDepth: changes.maxDepth ?? 3 })
  const suppliers: Supplier[] = [{ agent: seller.key.principal, purchases: [wanted] }]
  const callAgent = (): Caller<typeof agentProtocol.methods> => seller.as(buyerKey.principal)
  const buyer = await agentLab(
    { suppliers },
    {
      key: buyerKey,
      clock: seller.clock,
      callAgent,
      isProven: () => changes.isProven === true,
      advertOf: (principal) => (principal === node.principal ? nodeAdvert(node) : undefined)
    }
  )
  await bought(buyer)
  return { seller, buyer }
}

/** Lets the agent do what is due now. */
async function bought({ clock }: AgentLab): Promise<void> {
  await clock.advance(0)
  for (let turn = 0; turn < 5; turn++) await settle()
}

async function chainOf(
  lab: AgentLab,
  changes: Partial<ReturnType<typeof request>> = {}
): Promise<Uint8Array[]> {
  const params = { slice: 'mesh', requests: [request(node, changes)] }
  const { grants } = await lab.as(holder.principal)('getTickets', params)
  const refusal = grants[0]?.refusal
  if (refusal !== undefined) throw new TypeError(refusalObject.open(refusal).body.code)
  return [...(grants[0]?.chain ?? [])]
}

test('a ticket cut from a wholesale ticket holds as a chain at its node, and no more is cut than there is', async (t) => {
  const { buyer, seller } = await market()
  t.deepEqual(buyer.agent.nodes(), [node.principal])
  const [root = new Uint8Array(), ...links] = await chainOf(buyer, { ports: [{ protocol: 'tcp' }] })
  const tickets = links.map((bytes) => ticketObject.open(bytes))
  t.is(tickets.length, 2)
  t.is(tickets[0]?.body.slice, undefined)
  t.is(tickets[0]?.body.redeemBefore, tickets[0]?.body.notAfter)
  t.deepEqual(tickets[1]?.body.ports, tickets[0]?.body.ports)
  const presentation = { node: node.principal, holder: holder.principal, now: NOW }
  t.is(chainFault({ delegation: delegationObject.open(root), tickets }, presentation), undefined)
  const sizes = await ask(buyer, holder, ...Array.from({ length: 4 }, () => request(node)))
  t.deepEqual(sizes.map(outcome), ['granted', 'granted', 'granted', 'OVERBOOKED'])
  t.is(outcome((await ask(seller, holder, request(node, { resources: amounts(7) })))[0]), 'OVERBOOKED')
})

test('what was bought is offered, and there again after a restart, without buying twice', async (t) => {
  const { buyer, seller } = await market()
  await chainOf(buyer, { resources: amounts(3) })
  const again = await buyer.restart()
  await bought(again)
  t.is(seller.agent.tickets().length, 1)
  const offers: unknown[] = []
  await again.as(holder.principal)('getAds', {}, { onItem: (offer) => void offers.push(offer) })
  t.is(offers.length, 1)
  const { memoryBytes } = amounts(1)
  t.like(offers[0], { available: { memoryBytes }, until: NOW + 3 * HOUR, reliability: 500 })
  await t.throwsAsync(chainOf(again, { resources: amounts(2) }), { message: 'OVERBOOKED' })
})

test('a wholesale ticket is got anew before it ends, in its line and with its ports', async (t) => {
  const { buyer, seller } = await market()
  await chainOf(buyer, { resources: amounts(4), durationMs: 150 * 60_000 })
  await seller.clock.advance(125 * 60_000)
  await bought(buyer)
  const kept = seller.agent.tickets().map(({ notAfter }) => notAfter)
  t.is(kept.length, 2)
  t.true((kept[1] ?? 0) > NOW + 4.9 * HOUR)
  const links = (await ask(buyer, holder, request(node)))[0]
  t.is(outcome(links), 'OVERBOOKED', 'what is out below the one before still needs room')
  buyer.answer = () => 'ended'
  await seller.clock.advance(15_000)
  const [root, ...tickets] = await chainOf(buyer, { resources: amounts(4), durationMs: 2 * HOUR })
  t.truthy(root)
  const [first] = tickets.map((bytes) => ticketObject.open(bytes))
  t.truthy(first?.body.supersedes)
  t.is(first && lineOf(first), `${first?.body.supersedes} ${buyerKey.principal} ${node.principal} `)
})

test('only partners get tickets without a slice, and only to cut others from', async (t) => {
  const { buyer, seller } = await market({ partner: false })
  t.deepEqual(buyer.agent.nodes(), [])
  const code = async (
    lab: AgentLab,
    principal: string,
    canDelegate: boolean
  ): Promise<string | undefined> => {
    const { grants } = await lab.as(principal)('getTickets', { requests: [request(node, { canDelegate })] })
    return grants[0]?.refusal && refusalObject.open(grants[0].refusal).body.code
  }
  t.is(await code(seller, holder.principal, true), 'DENIED')
  const open = (await market()).seller
  t.is(await code(open, buyerKey.principal, false), 'DENIED')
  t.is(await code(open, buyerKey.principal, true), undefined)
})

test('of a wholesale ticket and a delegation that one is offered which has something of everything', async (t) => {
  const { buyer } = await market()
  const offered = async (): Promise<Resources[]> => {
    const offers: Resources[] = []
    const onItem = ({ available }: { available: Resources }): void => void offers.push(available)
    await buyer.as(holder.principal)('getAds', {}, { onItem })
    return offers
  }
  t.deepEqual(await offered(), [amounts(4)])
  await handOver(buyer, node, { resources: amounts(2), maxDepth: 3 })
  t.deepEqual(await offered(), [amounts(4)])
  // All the processor time of the wholesale ticket, and a quarter of the rest.
  const { cpuMillis } = amounts(4)
  t.is((await chainOf(buyer, { resources: { ...amounts(1), cpuMillis } })).length, 3)
  t.deepEqual(await offered(), [amounts(2)])
  t.is((await chainOf(buyer, { resources: amounts(2) })).length, 2)
})

test('no ticket is cut deeper than the node lets them hang', async (t) => {
  const shallow = await market({ maxDepth: 1 })
  t.deepEqual(shallow.buyer.agent.nodes(), [])
  const { buyer } = await market({ maxDepth: 2 })
  t.is((await chainOf(buyer)).length, 3)
  await t.throwsAsync(chainOf(buyer, { canDelegate: true }), { message: 'DENIED' })
})

test('why a supplier gives nothing is told once, and again when it changes', async (t) => {
  const seller = await agentLab(POLICY)
  const told: unknown[] = []
  const logger: Logger = {
    ...silentLogger,
    child: () => logger,
    warn: (_message, fields) => told.push(fields?.['code'])
  }
  const buyer = await agentLab(
    { suppliers: [{ agent: seller.key.principal, purchases: [wanted] }] },
    { key: buyerKey, clock: seller.clock, logger, callAgent: () => seller.as(buyerKey.principal) }
  )
  for (let turn = 0; turn < 3; turn++) {
    await bought(buyer)
    await seller.clock.advance(60_000)
  }
  t.deepEqual(told, ['DENIED'])
})

test('nothing is bought of who was shown to cheat', async (t) => {
  const { buyer } = await market({ isProven: true })
  t.deepEqual(buyer.agent.nodes(), [])
})

test('a node leases what was cut from a wholesale ticket, and says the same of both tickets', async (t) => {
  const { buyer, seller } = await market()
  const real = await nodeLab({ key: node, clock: seller.clock })
  const [delegation = new Uint8Array(), ...tickets] = await chainOf(buyer)
  const [whole, leaf] = tickets.map((bytes) => ticketObject.open(bytes))
  if (whole === undefined || leaf === undefined) return t.fail()
  const settle = async (lab: AgentLab, of: typeof leaf): Promise<readonly string[]> =>
    (await real.as(lab.key.principal)('settleTickets', { tickets: [of.bytes], cancel: false })).states
  const redeem = demand(leaf, holder).bytes
  const { lease } = await real.as(holder.principal)('newLease', { redeem, delegation, tickets })
  t.truthy(lease)
  t.deepEqual(await settle(buyer, leaf), ['redeemed'])
  t.deepEqual(await settle(seller, whole), ['redeemed'])
  return real.manager.stop()
})

const seller = makeKey()
const whole: Partial<Ticket> = { canDelegate: true, redeemBefore: NOW + HOUR }
const bad: Readonly<Record<string, Partial<Ticket>>> = {
  'for a slice': { slice: 'mesh' },
  'that may not be delegated': { canDelegate: false },
  'for somebody else': { holder: holder.principal },
  'for more than there is': { resources: amounts(11) }
}
for (const [name, changes] of Object.entries({ ...bad, 'that is good': {} })) {
  test(`a wholesale ticket ${name} is ${name === 'that is good' ? 'taken' : 'not taken'}`, (t) => {
    const delegation = delegate(node, seller)
    const { slice: _slice, ...body } = issue(delegation, seller, buyerKey, whole).body
    const ticket = ticketObject.sign({ ...body, ...changes }, seller)
    const deal = { agent: seller.principal, holder: buyerKey.principal, node: node.principal }
    const open = (): unknown => openWholesale([delegation.bytes, ticket.bytes], deal)
    if (name === 'that is good') t.notThrows(open)
    else t.throws(open, { code: 'PROTOCOL_ERROR' })
    t.is(overIssued(delegation, [ticket]) === undefined, name !== 'for more than there is')
  })
}

test('with what is bought comes the advert of its node, which is looked for until it is known, and no others', async (t) => {
  const advert = nodeAdvert(node)
  const others = [makeKey(), makeKey()].map((key) => nodeAdvert(key))
  const policy = { ...POLICY.policy, partners: [{ principal: buyerKey.principal }] }
  const known: Uint8Array[] = []
  const seller = await agentLab({ policy }, { advertOf: () => advert })
  await handOver(seller, node)
  const honest = seller.as(buyerKey.principal)
  let floods = true
  const callAgent = (): Caller<typeof agentProtocol.methods> => async (method, params, options) => {
    const { onItem } = (options ?? {}) as { onItem?: (item: { advert: Uint8Array }) => void }
    if (method === 'getAds' && floods) for (const { bytes } of others) onItem?.({ advert: bytes })
    return honest(method, params, options)
  }
  const buyer = await agentLab(
    { suppliers: [{ agent: seller.key.principal, purchases: [wanted] }] },
    {
      key: buyerKey,
      clock: seller.clock,
      callAgent,
      learn: (bytes) => void known.push(bytes),
      advertOf: (principal) =>
        principal === node.principal && known.some((bytes) => Buffer.from(advert.bytes).equals(bytes))
          ? advert
          : undefined
    }
  )
  await bought(buyer)
  t.deepEqual(known, [others[0]?.bytes], 'as many as were bought, whatever the seller hands over')
  floods = false
  await buyer.clock.advance(15_000)
  await bought(buyer)
  t.deepEqual(known.slice(1), [advert.bytes])
  await buyer.clock.advance(60_000)
  t.is(known.length, 2, 'and no more once it is known')
})

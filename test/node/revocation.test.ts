import test from 'ava'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { revocationObject, type Revocation } from '../../src/ticket/revocation.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { HOUR, NOW, amounts, delegate, issue, makeKey } from '../ticket/fixtures.ts'
import { codeOf, leaseOf, nodeLab, redeem, renew, type NodeLab, type Presented } from './node-lab.ts'

const agent = makeKey()
const reseller = makeKey()
const holder = makeKey()
const stranger = makeKey()

function revocation(
  lab: NodeLab,
  by: SigningKey,
  target: Revocation['target'],
  changes: Partial<Revocation> = {}
): Signed<Revocation> {
  const term = { notBefore: NOW - HOUR, notAfter: NOW + HOUR }
  const body = { issuer: by.principal, ...term, seq: 1, node: lab.key.principal, target, ...changes }
  return revocationObject.sign(body, by)
}

async function revoke(
  lab: NodeLab,
  one: Signed<Revocation>,
  { delegation, tickets }: Presented
): Promise<void> {
  const chain = { delegation: delegation.bytes, tickets: tickets.map(({ bytes }) => bytes) }
  await lab.as(stranger.principal)('revoke', { revocation: one.bytes, ...chain })
}

/** A chain of three: node, agent, reseller, holder. */
function chainOf(lab: NodeLab): Presented {
  const delegation = delegate(lab.key, agent)
  const wholesale = issue(delegation, agent, reseller, { resources: amounts(4), redeemBefore: NOW + HOUR })
  const ticket = issue(wholesale, reseller, holder, { canDelegate: false })
  return { delegation, tickets: [wholesale, ticket], holder }
}

for (const [who, by, place] of [
  ['its issuer', reseller, 1],
  ['an agent above', agent, 1],
  ['an agent above, what it was cut from', agent, 0]
] as const) {
  test(`a ticket that ${who} revoked is not redeemed, before and after a restart`, async (t) => {
    const lab = await nodeLab()
    const chain = chainOf(lab)
    await revoke(lab, revocation(lab, by, { id: chain.tickets[place]!.id }), chain)
    t.is(codeOf(await redeem(lab, chain)), 'TICKET_REVOKED')
    t.is(codeOf(await redeem(await lab.restart(), chain)), 'TICKET_REVOKED')
  })
}

test('the node itself, and an agent by a floor of sequence numbers, revoke as well', async (t) => {
  for (const target of [
    { issuer: agent.principal, beforeSeq: 2 },
    { issuer: reseller.principal, beforeSeq: 2 }
  ]) {
    for (const by of ['node', 'agent'] as const) {
      const lab = await nodeLab()
      const chain = chainOf(lab)
      await revoke(lab, revocation(lab, by === 'node' ? lab.key : agent, target), chain)
      t.is(codeOf(await redeem(lab, chain)), 'TICKET_REVOKED')
      const later = { ...chain, tickets: [issue(chain.delegation, agent, holder, { seq: 2, ports: [] })] }
      t.is(codeOf(await redeem(lab, later)), 'leased', 'the floor spares what comes after it')
    }
  }
})

test('who issued no link revokes nothing, even if the node takes the word', async (t) => {
  const lab = await nodeLab()
  const chain = chainOf(lab)
  const target = { id: chain.tickets[1]!.id }
  await t.throwsAsync(revoke(lab, revocation(lab, stranger, target), chain), { code: 'DENIED' })
  // The holder is last in the chain, and may revoke what is cut from its ticket, but not the ticket.
  await revoke(lab, revocation(lab, holder, target), chain)
  t.is(codeOf(await redeem(lab, chain)), 'leased')
})

test('a revocation of below does not reach what is above', async (t) => {
  const lab = await nodeLab()
  const chain = chainOf(lab)
  await revoke(lab, revocation(lab, reseller, { id: chain.tickets[0]!.id }), chain)
  t.is(codeOf(await redeem(lab, chain)), 'leased')
})

test('a lease in force goes on when its ticket is revoked, but is not renewed', async (t) => {
  const lab = await nodeLab()
  const delegation = delegate(lab.key, agent)
  const ticket = issue(delegation, agent, holder)
  const presented = { delegation, tickets: [ticket], holder }
  const lease = leaseOf(await redeem(lab, presented))
  const floor = { issuer: agent.principal, beforeSeq: 3 }
  await revoke(lab, revocation(lab, agent, floor, { notAfter: NOW + 3 * HOUR }), presented)
  t.like(await lab.as(holder.principal)('status', { lease: lease.id }), { state: 'created' })
  const next = issue(delegation, agent, holder, { seq: 2, notAfter: NOW + 2 * HOUR, supersedes: ticket.id })
  const changes = { renews: lease.id, nonce: new Uint8Array(16).fill(2) }
  t.is(codeOf(await renew(lab, { ...presented, tickets: [next], changes })), 'TICKET_REVOKED')
  t.like(await lab.as(holder.principal)('status', { lease: lease.id }), { notAfter: lease.body.notAfter })
})

test('a revocation holds while its interval does, and is forgotten then', async (t) => {
  const lab = await nodeLab()
  const chain = chainOf(lab)
  const { id } = chain.tickets[1]!
  await revoke(lab, revocation(lab, agent, { id }, { notAfter: NOW + 120_000 }), chain)
  await lab.clock.advance(121_000)
  t.is(codeOf(await redeem(lab, chain)), 'leased')
  t.deepEqual(await Array.fromAsync(lab.store.disk.iterate('node-revocations')), [])
})

test('revocations for another node, over, under a foreign delegation, or too many are refused', async (t) => {
  const lab = await nodeLab()
  const chain = chainOf(lab)
  const target = { id: chain.tickets[1]!.id }
  const other = revocation(lab, agent, target, { node: stranger.principal })
  await t.throwsAsync(revoke(lab, other, chain), { code: 'TICKET_WRONG_NODE' })
  const over = revocation(lab, agent, target, { notAfter: NOW - 1 })
  await t.throwsAsync(revoke(lab, over, chain), { code: 'TICKET_EXPIRED' })
  const foreign = delegate(stranger, agent)
  const under = { ...chain, delegation: foreign, tickets: [] }
  await t.throwsAsync(revoke(lab, revocation(lab, agent, target), under), { code: 'CHAIN_INVALID' })
  for (let seq = 0; seq < 256; seq++) await revoke(lab, revocation(lab, agent, target, { seq }), chain)
  const many = revocation(lab, agent, target, { seq: 256 })
  await t.throwsAsync(revoke(lab, many, chain), { code: 'QUOTA_EXCEEDED' })
  t.is(codeOf(await redeem(lab, chain)), 'TICKET_REVOKED')
})

test('those who only bought have a part of the room, so that agents and the node can always revoke', async (t) => {
  const lab = await nodeLab()
  const chain = chainOf(lab)
  const target = { id: chain.tickets[1]!.id }
  for (let buyer = 0; buyer < 4; buyer++) {
    const by = makeKey()
    const bought = { ...chain, tickets: [issue(chain.delegation, agent, by, { seq: 10 + buyer, ports: [] })] }
    for (let seq = 0; seq < 256; seq++) await revoke(lab, revocation(lab, by, target, { seq }), bought)
  }
  const late = makeKey()
  const bought = { ...chain, tickets: [issue(chain.delegation, agent, late, { seq: 20, ports: [] })] }
  await t.throwsAsync(revoke(lab, revocation(lab, late, target), bought), { code: 'QUOTA_EXCEEDED' })
  await revoke(lab, revocation(lab, agent, target), chain)
  t.is(codeOf(await redeem(lab, chain)), 'TICKET_REVOKED')
  await lab.manager.revokeHere({ id: chain.tickets[0]!.id })
})

test('a chain that is over gives nobody a say', async (t) => {
  const lab = await nodeLab()
  const delegation = delegate(lab.key, agent)
  const over = issue(delegation, agent, holder, { notBefore: NOW - HOUR, notAfter: NOW, ports: [] })
  const presented = { delegation, tickets: [over], holder }
  await t.throwsAsync(revoke(lab, revocation(lab, holder, { id: over.id }), presented), {
    code: 'TICKET_EXPIRED'
  })
})

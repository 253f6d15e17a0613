import test from 'ava'
import type { PeerParts } from '../../src/daemon/compose.ts'
import { proofHandlers, ticketHandlers } from '../../src/daemon/trust-handlers.ts'
import type { NodeManager } from '../../src/node/node-manager.ts'
import { delegate, issue, makeKey } from '../ticket/fixtures.ts'
import { fraud } from '../ticket/frauds.ts'
import { codeOf, nodeLab, redeem } from '../node/node-lab.ts'
import { overlay, slice, type Overlay } from '../service/overlay.ts'

const CALL = {
  principal: undefined,
  signal: new AbortController().signal,
  emit: async () => {},
  input: (async function* (): AsyncGenerator<never> {})()
}

interface Roles {
  readonly user?: Overlay
  readonly agent?: Overlay['agents'][number]
  readonly manager?: NodeManager
}

/** The parts of a peer that these handlers use. */
function partsOf({ user, agent, manager }: Roles): () => PeerParts {
  const parts = {
    host: { principal: agent?.key.principal ?? user?.user.principal },
    services: user?.services ?? { records: () => [] },
    agent: agent?.agent,
    node: manager && { manager }
  }
  return () => parts as unknown as PeerParts
}

test('an agent lists what it issued, a researcher what it holds: the same tickets', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  await one.services.create(slice({ count: 2 }))
  const [agent] = one.agents
  if (agent === undefined) return t.fail()
  const issued = await ticketHandlers(partsOf({ agent })).ticketList({}, CALL)
  const held = await ticketHandlers(partsOf({ user: one })).ticketList({}, CALL)
  t.deepEqual(
    issued.tickets.map(({ ticket, role, state, slice: name }) => ({ ticket, role, state, name })),
    held.tickets.map(({ ticket }) => ({
      ticket,
      role: 'issued' as const,
      state: 'out' as const,
      name: 'mesh'
    }))
  )
  t.true(held.tickets.every(({ role, state }) => role === 'held' && state === 'leased'))
  return t.true(
    held.tickets.every(({ issuer, holder }) => issuer !== holder && holder === one.user.principal)
  )
})

test('what an agent revokes is not renewed any more, and what runs goes on', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(slice({ count: 1, leaseMs: 60_000 }))
  const [agent] = one.agents
  const handlers = ticketHandlers(partsOf(agent === undefined ? {} : { agent }))
  const [ticket] = (await handlers.ticketList({}, CALL)).tickets
  t.is((await handlers.ticketRevoke({ ticket: ticket?.ticket ?? '' }, CALL)).by, 'agent')
  t.is((await handlers.ticketList({}, CALL)).tickets[0]?.state, 'revoked')
  await one.clock.advance(20_000)
  const { members } = await one.services.renew('mesh')
  t.is(members[0]?.reason?.code, 'TICKET_REVOKED')
  t.is((await one.services.show('mesh')).members[0]?.state, 'running')
  await t.throwsAsync(handlers.ticketRevoke({ ticket: `bafyrei${'a'.repeat(52)}` }, CALL), {
    code: 'NOT_FOUND'
  })
})

test('what a node revokes it does not redeem, whoever issued it, before and after a restart', async (t) => {
  const lab = await nodeLab()
  const [agent, holder] = [makeKey(), makeKey()]
  const delegation = delegate(lab.key, agent)
  const [revoked, other] = [1, 2].map((seq) =>
    issue(delegation, agent, holder, {
      seq,
      ports: [{ protocol: 'tcp', first: 20_000 + seq, last: 20_000 + seq }]
    })
  )
  if (revoked === undefined || other === undefined) return t.fail()
  const { manager } = lab
  t.is((await ticketHandlers(partsOf({ manager })).ticketRevoke({ ticket: revoked.id }, CALL)).by, 'node')
  const present = (ticket: typeof revoked) => ({ delegation, tickets: [ticket], holder })
  t.is(codeOf(await redeem(lab, present(revoked))), 'TICKET_REVOKED')
  t.is(codeOf(await redeem(await lab.restart(), present(revoked))), 'TICKET_REVOKED')
  return t.not(codeOf(await redeem(await lab.restart(), present(other))), 'TICKET_REVOKED')
})

test('a node that revokes an issuer takes none of its tickets below the number', async (t) => {
  const lab = await nodeLab()
  const [agent, holder] = [makeKey(), makeKey()]
  const delegation = delegate(lab.key, agent)
  const [early, late] = [1, 2].map((seq) => issue(delegation, agent, holder, { seq, ports: [] }))
  if (early === undefined || late === undefined) return t.fail()
  const { issuerRevoke } = ticketHandlers(partsOf({ manager: lab.manager }))
  await issuerRevoke({ issuer: agent.principal, beforeSeq: 2 }, CALL)
  t.is(codeOf(await redeem(lab, { delegation, tickets: [early], holder })), 'TICKET_REVOKED')
  t.is(codeOf(await redeem(lab, { delegation, tickets: [late], holder })), 'leased')
  return t.throwsAsync(
    ticketHandlers(partsOf({})).issuerRevoke({ issuer: agent.principal, beforeSeq: 2 }, CALL),
    { code: 'DENIED' }
  )
})

test('who is neither agent nor node revokes nothing', async (t) => {
  const handlers = ticketHandlers(partsOf({}))
  await t.throwsAsync(handlers.ticketRevoke({ ticket: `bafyrei${'a'.repeat(52)}` }, CALL), {
    code: 'DENIED'
  })
})

test('proofs are listed and handed out by their id', async (t) => {
  const bundle = fraud()
  const parts = { directory: { proofs: { all: () => [bundle] } } }
  const handlers = proofHandlers(() => parts as unknown as PeerParts)
  const { proofs } = await handlers.proofList({}, CALL)
  t.like(proofs, [{ proof: bundle.proof.id, accused: bundle.finding.accused, evidence: 2 }])
  t.deepEqual(await handlers.proofGet({ proof: bundle.proof.id }, CALL), { bundle: bundle.bytes })
  await t.throwsAsync(handlers.proofGet({ proof: fraud().proof.id }, CALL), { code: 'NOT_FOUND' })
})

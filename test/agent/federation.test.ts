/**
 * Trade across organisations: the agent of one sells wholesale to the agent of another, under rules and quotas, and a
 * member of the other has a lease at a node that delegates to the first only.
 */
import test from 'ava'
import { parsePolicy } from '../../src/daemon/policy-file.ts'
import type { Caller } from '../../src/protocol/method.ts'
import type { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import { leaseObject } from '../../src/ticket/lease.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { refusalObject } from '../../src/ticket/refusal.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
import { settle } from '../base/manual-clock.ts'
import { nodeAdvert } from '../broker/adverts.ts'
import { nodeLab, type NodeLab } from '../node/node-lab.ts'
import { HOUR, amounts, demand, makeKey } from '../ticket/fixtures.ts'
import { vouch } from '../ticket/memberships.ts'
import { agentLab, handOver, request, type AgentLab } from './agent-lab.ts'

const organisationA = makeKey()
const organisationB = makeKey()
const member = makeKey()
const colleague = makeKey()

/** Of agent A: members of the other organisation's may buy, all together four shares. */
const SELLING = `
rules:
  - name: partner
    match: { organisations: [${organisationB.principal}] }
    grants: wholesale
    longestTerm: 4h
    perOrganisation: { tickets: 2, cpu: 400m, memory: 4MB }
default: { access: deny }
`
const BUYING = `
rules:
  - name: ours
    match: { organisations: [${organisationB.principal}] }
    longestTerm: 1h
    perPrincipal: { tickets: 2, cpu: 200m }
    perOrganisation: { cpu: 300m }
default: { access: deny }
`

interface Federation {
  readonly node: NodeLab
  readonly a: AgentLab
  readonly b: AgentLab
}

/** A node that leases to members of B only and delegates to agent A; agent B buys `factor` shares of it. */
async function federation(
  changes: { isMember?: boolean; factor?: number; seller?: Pick<Federation, 'node' | 'a'> } = {}
): Promise<Federation> {
  const { isMember = true, factor = 4, seller } = changes
  const accepts = { principals: [], organisations: [organisationB.principal] }
  const node = seller?.node ?? (await nodeLab({ accepts }))
  const advertOf = (principal: string) =>
    principal === node.key.principal ? nodeAdvert(node.key, { accepts }) : undefined
  const a =
    seller?.a ?? (await agentLab({ policy: parsePolicy(SELLING, 'a.yaml') }, { clock: node.clock, advertOf }))
  if (seller === undefined) await handOver(a, node.key, { maxDepth: 2 })
  const key = makeKey()
  const wanted = request(node.key, {
    resources: amounts(factor),
    durationMs: 3 * HOUR,
    ports: [{ protocol: 'tcp' }]
  })
  const b = await agentLab(
    { policy: parsePolicy(BUYING, 'b.yaml'), suppliers: [{ agent: a.key.principal, purchases: [wanted] }] },
    {
      key,
      clock: node.clock,
      advertOf,
      callAgent: (): Caller<typeof agentProtocol.methods> => a.as(key.principal),
      memberships: () => (isMember ? [vouch(organisationB, key.principal).bytes] : [])
    }
  )
  await node.clock.advance(0)
  for (let turn = 0; turn < 5; turn++) await settle()
  return { node, a, b }
}

/** Asks B for a ticket as a member of an organisation; gives the chain or the refusal. */
async function askB(
  { b, node }: Federation,
  holder: SigningKey,
  organisation: SigningKey | undefined
): Promise<{ chain?: Uint8Array[]; code?: string; message?: string }> {
  const memberships = organisation === undefined ? [] : [vouch(organisation, holder.principal).bytes]
  const wish = request(node.key, { ports: [{ protocol: 'tcp' }], durationMs: HOUR })
  const requests = [organisation === undefined ? wish : { ...wish, ports: [] }]
  const { grants } = await b.as(holder.principal)('getTickets', { slice: 'mesh', memberships, requests })
  const [grant] = grants
  if (grant?.refusal === undefined) return { chain: [...(grant?.chain ?? [])] }
  const { code, message } = refusalObject.open(grant.refusal).body
  return { code, message }
}

async function redeemAt(
  { node }: Federation,
  holder: SigningKey,
  chain: readonly Uint8Array[],
  organisation: SigningKey | undefined
): Promise<string> {
  const [delegation = new Uint8Array(), ...tickets] = chain
  const leaf = ticketObject.open(tickets.at(-1) ?? new Uint8Array())
  const memberships = organisation === undefined ? [] : [vouch(organisation, holder.principal).bytes]
  const reply = await node.as(holder.principal)('newLease', {
    redeem: demand(leaf, holder).bytes,
    delegation,
    tickets,
    memberships
  })
  if (reply.refusal !== undefined) return refusalObject.open(reply.refusal).body.code
  const { body } = leaseObject.open(reply.lease ?? new Uint8Array())
  return body.holder === holder.principal && body.ticket === leaf.id ? 'leased' : 'another lease'
}

test('a member of one organisation has a lease of a node that delegates to the agent of another', async (t) => {
  const all = await federation()
  t.deepEqual(all.b.agent.nodes(), [all.node.key.principal])
  const { chain = [] } = await askB(all, member, organisationB)
  const tickets = chain.slice(1).map((bytes) => ticketObject.open(bytes).body)
  t.deepEqual(
    tickets.map(({ issuer, holder, slice }) => [issuer, holder, slice]),
    [
      [all.a.key.principal, all.b.key.principal, undefined],
      [all.b.key.principal, member.principal, 'mesh']
    ]
  )
  t.is(
    await redeemAt(all, member, chain, undefined),
    'DENIED',
    'the node itself asks who vouches for the holder'
  )
  t.is(await redeemAt(all, member, chain, organisationB), 'leased')
  t.is((await all.node.enforcer.running()).length, 1)
})

test('each agent holds to its own rules, whoever asks', async (t) => {
  const all = await federation()
  t.like(await askB(all, makeKey(), undefined), { code: 'DENIED' })
  t.like(await askB(all, makeKey(), organisationA), { code: 'DENIED' })
  const codes: (string | undefined)[] = []
  for (const holder of [member, member, member, colleague, colleague]) {
    codes.push((await askB(all, holder, organisationB)).code)
  }
  t.deepEqual(codes, [undefined, undefined, 'QUOTA_EXCEEDED', undefined, 'QUOTA_EXCEEDED'])
  t.regex((await askB(all, member, organisationB)).message ?? '', /tickets per principal is 2.*rule "ours"/)
  t.regex(
    (await askB(all, colleague, organisationB)).message ?? '',
    /cpu per organisation.* is 300m, of which 300m are held.*rule "ours"/
  )
  // Of agent A a member of either has nothing for a slice.
  const memberships = [vouch(organisationB, member.principal).bytes]
  const params = { slice: 'mesh', memberships, requests: [request(all.node.key)] }
  const { grants } = await all.a.as(member.principal)('getTickets', params)
  t.regex(
    refusalObject.open(grants[0]?.refusal ?? new Uint8Array()).body.message,
    /no slices.*rule "partner"/
  )
})

test('the agents of one organisation buy no more together than the seller lets it have', async (t) => {
  const first = await federation({ factor: 3 })
  const second = await federation({ factor: 2, seller: first })
  t.deepEqual(second.b.agent.nodes(), [], 'three and two shares are more than four')
  const third = await federation({ factor: 1, seller: first })
  t.deepEqual(third.b.agent.nodes(), [first.node.key.principal])
  const fourth = await federation({ factor: 0, seller: first })
  t.deepEqual(fourth.b.agent.nodes(), [], 'a third ticket is more than two')
  t.is(first.a.agent.tickets().length, 2)
  t.is((await federation({ factor: 5 })).b.agent.nodes().length, 0)
})

test('who is not vouched for by the partner buys nothing', async (t) => {
  const { a, b } = await federation({ isMember: false })
  t.deepEqual(b.agent.nodes(), [])
  t.deepEqual(a.agent.tickets(), [])
})

test('what was sold to an organisation still counts after the seller began anew', async (t) => {
  const first = await federation({ factor: 3 })
  const a = await first.a.restart()
  const second = await federation({ factor: 2, seller: { node: first.node, a } })
  t.deepEqual(second.b.agent.nodes(), [])
})

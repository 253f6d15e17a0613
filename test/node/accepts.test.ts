/** A node that leases to some only, whatever its agents grant. */
import test from 'ava'
import type { Accepts } from '../../src/ticket/accepts.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { HOUR, NOW, delegate, issue, makeKey } from '../ticket/fixtures.ts'
import { vouch } from '../ticket/memberships.ts'
import { codeOf, leaseOf, nodeLab, redeem, renew, type NodeLab, type Presented } from './node-lab.ts'

const agent = makeKey()
const holder = makeKey()
const stranger = makeKey()
const organisation = makeKey()

function member(by: SigningKey, of: SigningKey, notAfter = NOW + HOUR): Uint8Array {
  return vouch(by, of.principal, { notAfter }).bytes
}

function presented(lab: NodeLab, ...memberships: Uint8Array[]): Presented {
  const delegation = delegate(lab.key, agent)
  return { delegation, tickets: [issue(delegation, agent, holder)], holder, memberships }
}

const members: Accepts = { principals: [], organisations: [organisation.principal] }

const outcomes: Readonly<
  Record<string, readonly [accepts: Accepts | undefined, shown: readonly Uint8Array[], code: string]>
> = {
  'that accepts everybody leases to somebody without an organisation': [undefined, [], 'leased'],
  'that accepts nobody leases to nobody': [{ principals: [], organisations: [] }, [], 'DENIED'],
  'leases to whom it names': [{ principals: [holder.principal], organisations: [] }, [], 'leased'],
  'leases to nobody whom it does not name': [
    { principals: [stranger.principal], organisations: [] },
    [],
    'DENIED'
  ],
  'leases to whom its organisation vouches for': [members, [member(organisation, holder)], 'leased'],
  'leases to no member that does not show it': [members, [], 'DENIED'],
  'takes no membership of somebody else': [members, [member(organisation, stranger)], 'DENIED'],
  'takes no membership by another organisation': [members, [member(stranger, holder)], 'DENIED'],
  'takes no membership that is over': [members, [member(organisation, holder, NOW)], 'DENIED'],
  'takes no bytes that are no membership, and looks at the next': [
    members,
    [new Uint8Array(9), member(organisation, holder)],
    'leased'
  ],
  'takes no membership whose signature is of another': [
    members,
    [forged(member(organisation, holder))],
    'DENIED'
  ]
}
for (const [name, [accepts, shown, code]] of Object.entries(outcomes)) {
  test(`a node ${name}`, async (t) => {
    const lab = await nodeLab(accepts === undefined ? {} : { accepts })
    t.is(codeOf(await redeem(lab, presented(lab, ...shown))), code)
    // What is refused here is leased by a node that does not ask: nothing else stands in its way.
    const open = await nodeLab()
    t.is(codeOf(await redeem(open, presented(open, ...shown))), 'leased')
    t.is((await lab.enforcer.list()).length, code === 'leased' ? 1 : 0)
  })
}

function forged(bytes: Uint8Array): Uint8Array {
  return bytes.map((byte, index) => (index === bytes.length - 1 ? byte ^ 1 : byte))
}

test('a node says whom it leases to when it refuses, before it looks at a signature of the chain', async (t) => {
  const lab = await nodeLab({ accepts: members })
  const { delegation, tickets, ...rest } = presented(lab)
  const unsigned = { ...delegation, bytes: forged(delegation.bytes) }
  const refused = await redeem(lab, { ...rest, delegation: unsigned, tickets })
  if (!('refusal' in refused)) return t.fail()
  t.is(refused.refusal.body.code, 'DENIED')
  t.is(refused.refusal.body.message, `this node serves members of ${organisation.principal} only`)
  const shown = [member(organisation, holder)]
  return t.throwsAsync(redeem(lab, { ...rest, delegation: unsigned, tickets, memberships: shown }), {
    code: 'SIGNATURE_INVALID'
  })
})

test('a lease is not renewed for who is no member any more, stays to its end, and is told again', async (t) => {
  const lab = await nodeLab({ accepts: members })
  const had = presented(lab, member(organisation, holder))
  const first = leaseOf(await redeem(lab, had))
  const [ticket] = had.tickets
  if (ticket === undefined) return t.fail()
  const later = issue(had.delegation, agent, holder, {
    seq: 2,
    notAfter: NOW + 2 * HOUR,
    supersedes: ticket.id
  })
  const renewing = { ...had, tickets: [later], changes: { renews: first.id } }
  t.is(codeOf(await renew(lab, { ...renewing, memberships: [] })), 'DENIED')
  t.is(lab.manager.held(first.id, holder.principal).lease.id, first.id)
  t.is(
    leaseOf(await redeem(lab, { ...had, memberships: [] })).id,
    first.id,
    'the same demand, the same lease'
  )
  return t.is(codeOf(await renew(lab, renewing)), 'leased')
})

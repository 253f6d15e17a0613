import test from 'ava'
import type { ErrorCode } from '../../src/base/errors.ts'
import { chainFault, type Chain } from '../../src/ticket/chain.ts'
import { ticketObject, type Ticket } from '../../src/ticket/ticket.ts'
import { HOUR, NOW, amounts, delegate, issue, makeKey } from './fixtures.ts'

const node = makeKey()
const agent = makeKey()
const reseller = makeKey()
const holder = makeKey()
const stranger = makeKey()
const delegation = delegate(node, agent)
const presentation = { node: node.principal, holder: holder.principal, now: NOW }

/** node → agent → reseller → holder, the last link changed. */
function chainWith(changes: Partial<Ticket>): Chain {
  const middle = issue(delegation, agent, reseller, { resources: amounts(2) })
  return { delegation, tickets: [middle, issue(middle, reseller, holder, changes)] }
}

test('a chain of node, agent, reseller and holder holds', (t) => {
  t.is(chainFault(chainWith({}), presentation), undefined)
  t.is(chainFault({ delegation, tickets: [issue(delegation, agent, holder)] }, presentation), undefined)
})

const broken: Readonly<Record<string, readonly [Partial<Ticket>, ErrorCode]>> = {
  'more memory than its parent': [
    { resources: { ...amounts(1), memoryBytes: 3_000_000 } },
    'TICKET_EXCEEDS_PARENT'
  ],
  'a longer term': [{ notAfter: NOW + 2 * HOUR }, 'TICKET_EXCEEDS_PARENT'],
  'an earlier term': [{ notBefore: NOW - 120_000 }, 'TICKET_EXCEEDS_PARENT'],
  'a longer hold': [{ redeemBefore: NOW + 400_000 }, 'TICKET_EXCEEDS_PARENT'],
  'a port its parent lacks': [
    { ports: [{ protocol: 'tcp', first: 20_001, last: 20_001 }] },
    'TICKET_EXCEEDS_PARENT'
  ],
  'the same port of another protocol': [
    { ports: [{ protocol: 'udp', first: 20_000, last: 20_000 }] },
    'TICKET_EXCEEDS_PARENT'
  ],
  'a right its parent lacks': [{ rights: ['raw-socket'] }, 'TICKET_EXCEEDS_PARENT'],
  'another node': [{ node: stranger.principal }, 'TICKET_WRONG_NODE'],
  'another holder': [{ holder: stranger.principal }, 'TICKET_WRONG_HOLDER'],
  'another parent': [{ parent: delegation.id }, 'CHAIN_INVALID'],
  'another slice': [{ slice: 'other' }, 'CHAIN_INVALID'],
  'a hold that is over': [{ redeemBefore: NOW }, 'TICKET_EXPIRED'],
  'a term that is over': [{ notAfter: NOW }, 'TICKET_EXPIRED'],
  'a term that has not begun': [{ notBefore: NOW + 1 }, 'TICKET_NOT_YET_VALID']
}
for (const [name, [changes, code]] of Object.entries(broken)) {
  test(`a ticket with ${name} is refused as ${code}`, (t) => {
    t.is(chainFault(chainWith(changes), presentation)?.code, code)
  })
}

test('a ticket issued by someone who does not hold the link before it is refused', (t) => {
  const forged = issue(delegation, stranger, holder)
  t.is(chainFault({ delegation, tickets: [forged] }, presentation)?.code, 'CHAIN_INVALID')
})

test('a ticket cut from one that may not be delegated is refused', (t) => {
  const middle = issue(delegation, agent, reseller, { canDelegate: false })
  const chain = { delegation, tickets: [middle, issue(middle, reseller, holder)] }
  t.is(chainFault(chain, presentation)?.code, 'CHAIN_INVALID')
})

test('a chain deeper than the delegation allows is refused', (t) => {
  const shallow = delegate(node, agent, { maxDepth: 1 })
  const middle = issue(shallow, agent, reseller)
  const chain = { delegation: shallow, tickets: [middle, issue(middle, reseller, holder)] }
  t.is(chainFault(chain, presentation)?.code, 'CHAIN_INVALID')
})

test('a chain that begins with a delegation of another node is refused', (t) => {
  const foreign = delegate(stranger, agent)
  const ticket = issue(foreign, agent, holder, { node: node.principal })
  t.is(chainFault({ delegation: foreign, tickets: [ticket] }, presentation)?.code, 'CHAIN_INVALID')
})

test('a delegation that is over carries no ticket', (t) => {
  const over = delegate(node, agent, { notAfter: NOW + 2 * HOUR })
  const ticket = issue(over, agent, holder, { notAfter: NOW + 2 * HOUR, redeemBefore: NOW + 2 * HOUR })
  const late = { ...presentation, now: NOW + 2 * HOUR }
  t.is(chainFault({ delegation: over, tickets: [ticket] }, late)?.code, 'TICKET_EXPIRED')
})

test('no ticket at all is refused', (t) => {
  t.is(chainFault({ delegation, tickets: [] }, presentation)?.code, 'CHAIN_INVALID')
})

test('a ticket whose payload was changed after signing does not open', (t) => {
  const { bytes } = issue(delegation, agent, holder)
  for (let at = 20; at < bytes.length; at += 17) {
    const changed = bytes.slice()
    changed[at] = (changed[at] ?? 0) ^ 1
    t.throws(() => ticketObject.open(changed), undefined, `byte ${at}`)
  }
})

test('a delegation is no ticket, although one key may have signed both', (t) => {
  t.throws(() => ticketObject.open(delegation.bytes), { code: 'ENCODING_INVALID' })
})

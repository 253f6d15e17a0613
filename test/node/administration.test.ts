/** Who gets administrative slices of a node, whatever its agents sign. */
import test from 'ava'
import { administrationFault, leasableRights } from '../../src/node/administration.ts'
import { RIGHTS, type Right } from '../../src/ticket/rights.ts'
import { HOUR, NOW, delegate, issue, makeKey } from '../ticket/fixtures.ts'
import { leaseOf, nodeLab, redeem, renew, type NodeLab, type Outcome, type Presented } from './node-lab.ts'

const agent = makeKey()
const administrator = makeKey()
const ordinary = makeKey()
const WATCH: readonly Right[] = ['administrative', 'cap-net-raw']
const policy = { holders: [administrator.principal], capabilities: ['cap-net-raw' as const] }

/** A ticket of an agent that may grant everything. */
function ticketFor(lab: NodeLab, rights: readonly Right[], holder = administrator): Presented {
  const delegation = delegate(lab.key, agent, { rights: [...RIGHTS] })
  return { delegation, tickets: [issue(delegation, agent, holder, { rights, ports: [] })], holder }
}

function refusalOf(outcome: Outcome): string {
  return 'refusal' in outcome ? `${outcome.refusal.body.code}: ${outcome.refusal.body.message}` : 'leased'
}

test('an administrator gets an administrative slice, with its rights in lease and machine', async (t) => {
  const lab = await nodeLab({ administrative: policy })
  const lease = leaseOf(await redeem(lab, ticketFor(lab, WATCH)))
  t.deepEqual(lease.body.rights, WATCH)
  t.deepEqual(
    lab.enforcer.created.map(({ rights }) => rights),
    [WATCH]
  )
})

const refused: Readonly<
  Record<
    string,
    readonly [policy: typeof policy | undefined, rights: readonly Right[], holder: typeof agent, says: RegExp]
  >
> = {
  'to an ordinary holder': [
    policy,
    WATCH,
    ordinary,
    /^DENIED: this node leases no administrative slices to 12D3/
  ],
  'without a capability as well': [
    policy,
    ['administrative'],
    ordinary,
    /^DENIED: .* no administrative slices/
  ],
  'of a node without such a policy': [
    undefined,
    WATCH,
    administrator,
    /^DENIED: .* no administrative slices/
  ],
  'with another capability': [
    policy,
    ['administrative', 'cap-kill'],
    administrator,
    /^DENIED: .*right cap-kill/
  ],
  'with a capability alone': [policy, ['cap-net-raw'], administrator, /^CHAIN_INVALID: .*needs the right/],
  'with raw sockets of its own': [
    policy,
    [...WATCH, 'raw-socket'],
    administrator,
    /^CHAIN_INVALID: .*no network/
  ]
}
for (const [name, [administrative, rights, holder, says]] of Object.entries(refused)) {
  test(`a ticket for an administrative slice ${name} is refused, signed, whatever its agent says`, async (t) => {
    const lab = await nodeLab(administrative === undefined ? {} : { administrative })
    const outcome = await redeem(lab, ticketFor(lab, rights, holder))
    t.regex(refusalOf(outcome), says)
    t.true('refusal' in outcome && outcome.refusal.body.issuer === lab.key.principal)
    t.is(lab.enforcer.created.length, 0)
    t.deepEqual(lab.manager.table.all(), [], 'nothing was written down either')
  })
}

test('ports and administrative rights in one ticket are refused', async (t) => {
  const lab = await nodeLab({ administrative: policy })
  const delegation = delegate(lab.key, agent, { rights: [...RIGHTS] })
  const tickets = [issue(delegation, agent, administrator, { rights: WATCH })]
  t.regex(refusalOf(await redeem(lab, { delegation, tickets, holder: administrator })), /own no ports/)
})

test('who may hold no administrative slice still gets ordinary ones', async (t) => {
  const lab = await nodeLab({ administrative: policy })
  t.is(refusalOf(await redeem(lab, ticketFor(lab, ['raw-socket'], ordinary))), 'leased')
})

test('no renewal gains a right, nor goes on after the node’s policy was changed', async (t) => {
  const lab = await nodeLab({ administrative: policy })
  const goOn = async (
    { lab, first, before }: { lab: NodeLab; first: Presented; before: Outcome },
    rights: readonly Right[]
  ): Promise<Outcome> => {
    const [ticket] = first.tickets
    const body = { seq: 2, notAfter: NOW + 2 * HOUR, supersedes: ticket?.id ?? '', ports: [] }
    const tickets = [issue(first.delegation, agent, administrator, { ...body, rights })]
    const changes = { renews: leaseOf(before).id, nonce: new Uint8Array(16).fill(rights.length + 1) }
    return renew(lab, { ...first, tickets, changes })
  }
  for (const [held, wanted] of [
    [[], WATCH],
    [['raw-socket'], ['administrative']],
    [['administrative'], WATCH],
    [WATCH, ['administrative']]
  ] as const) {
    const one = await nodeLab({ administrative: policy })
    const first = ticketFor(one, held)
    const had = { lab: one, first, before: await redeem(one, first) }
    t.regex(
      refusalOf(await goOn(had, wanted)),
      /a renewal keeps image, ports and rights/,
      `${held.join()} to ${wanted.join()}`
    )
    t.is(refusalOf(await goOn(had, held)), 'leased', 'with the same rights it goes on')
  }
  const first = ticketFor(lab, WATCH)
  const before = await redeem(lab, first)
  await lab.manager.stop()
  const { key, clock, store, enforcer } = lab
  const changed = await nodeLab({ key, clock, store, enforcer })
  t.regex(refusalOf(await goOn({ lab: changed, first, before }, WATCH)), /no administrative slices/)
})

test('a node delegates and tells of no more administrative rights than it leases', (t) => {
  const all = [...RIGHTS]
  t.deepEqual(leasableRights(undefined, all), ['raw-socket'])
  t.deepEqual(leasableRights({ ...policy, holders: [] }, all), ['raw-socket'])
  t.deepEqual(leasableRights(policy, all), ['raw-socket', ...WATCH])
  t.deepEqual(leasableRights(policy, ['cap-net-raw']), [], 'nothing could be made with it')
  t.is(administrationFault(undefined, ['raw-socket'], ordinary.principal), undefined)
})

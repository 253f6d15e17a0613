/** A slice as it is shown, from what is in the book and the states that its members are in. */
import type { MemberRecord, SliceRecord } from './slice-book.ts'
import type { MemberState, MemberView, SliceView } from './slice.ts'

/** Only members with a lease are shown. */
export async function sliceView(
  { description, state, createdAt, members: records }: SliceRecord,
  stateOf: (member: MemberRecord) => Promise<MemberState>
): Promise<SliceView> {
  const shown = [...records.values()].filter(({ lease }) => lease !== undefined)
  const members = await Promise.all(
    shown.map(async (member) => ({ ...memberView(member), ...(await stateOf(member)) }))
  )
  members.sort((a, b) => (a.nodeName < b.nodeName ? -1 : 1))
  const ends = members.map(({ notAfter }) => notAfter)
  return {
    name: description.name,
    state,
    count: description.count,
    createdAt,
    ...(ends.length === 0 ? {} : { notAfter: Math.min(...ends) }),
    renew: description.renew ?? false,
    members
  }
}

function memberView(member: MemberRecord): Omit<MemberView, keyof MemberState> {
  const { node, nodeName, agent, agentName, lease, ticket } = member
  if (lease === undefined) throw new TypeError('only leased members are shown')
  const { vserver, address, ports, notBefore, notAfter } = lease.body
  return {
    node,
    nodeName,
    agent,
    agentName,
    lease: lease.id,
    ticket: ticket.id,
    vserver,
    address,
    ports: [...ports],
    notBefore,
    notAfter
  }
}

/** What changes of a member, alone. */
export function stateOf({ state, exitCode, restarts, frozen, egressNarrowed }: MemberState): MemberState {
  return {
    state,
    ...(exitCode === undefined ? {} : { exitCode }),
    ...(restarts === undefined ? {} : { restarts }),
    ...(frozen === undefined ? {} : { frozen }),
    ...(egressNarrowed === undefined ? {} : { egressNarrowed })
  }
}

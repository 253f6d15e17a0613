/** What happens to a slice that somebody may want to hear of, and how it follows from two views of the slice. */
import * as v from 'valibot'
import {
  memberSchema,
  reasonSchema,
  sliceSchema,
  sliceStateSchema,
  type MemberView,
  type SliceView
} from './slice.ts'

const memberEvent = <const T extends string>(type: T) =>
  v.strictObject({ type: v.literal(type), member: memberSchema })

export const sliceEventSchema = v.variant('type', [
  v.strictObject({ type: v.literal('slice:state'), state: sliceStateSchema }),
  memberEvent('member:join'),
  /** Its virtual machine is in another state, by what its node said when it was asked last. */
  memberEvent('member:state'),
  /** It was given up, or lost before it was launched. */
  memberEvent('member:leave'),
  /** Its lease goes on: the member with the new lease and end. */
  memberEvent('lease:renew'),
  /** A try to renew its lease failed; the member is as before, until its end. */
  v.strictObject({ type: v.literal('lease:fail'), member: memberSchema, reason: reasonSchema }),
  /** Its term is over. */
  memberEvent('lease:expire'),
  /** Nothing more will happen: the slice was deleted, or the last lease is over. */
  v.strictObject({ type: v.literal('end'), reason: v.picklist(['deleted', 'expired']) })
])
export type SliceEvent = v.InferOutput<typeof sliceEventSchema>

/** What is said to whoever watches a slice: how it is at the beginning, then what happens to it. */
export const sliceNewsSchema = v.union([v.strictObject({ slice: sliceSchema }), sliceEventSchema])
export type SliceNews = v.InferOutput<typeof sliceNewsSchema>

/** What happened between two views of one slice, the end of all aside. Members are told apart by their vservers. */
export function sliceChanges(before: SliceView, after: SliceView): SliceEvent[] {
  const earlier = new Map(before.members.map((member) => [member.vserver, member]))
  const later = new Set(after.members.map(({ vserver }) => vserver))
  return [
    ...(before.state === after.state ? [] : [{ type: 'slice:state' as const, state: after.state }]),
    ...after.members.flatMap((member) => memberChanges(earlier.get(member.vserver), member)),
    ...before.members
      .filter(({ vserver }) => !later.has(vserver))
      .map((member) => ({ type: 'member:leave' as const, member }))
  ]
}

function memberChanges(before: MemberView | undefined, member: MemberView): SliceEvent[] {
  if (before === undefined) return [{ type: 'member:join', member }]
  const events: SliceEvent[] = []
  if (before.lease !== member.lease) events.push({ type: 'lease:renew', member })
  const same = (['state', 'exitCode', 'restarts', 'frozen', 'egressNarrowed'] as const).every(
    (name) => before[name] === member[name]
  )
  if (same) return events
  return [...events, { type: member.state === 'ended' ? 'lease:expire' : 'member:state', member }]
}

/** A view after an event. */
export function withEvent(slice: SliceView, event: SliceEvent): SliceView {
  if (event.type === 'end') return slice
  if (event.type === 'slice:state') return { ...slice, state: event.state }
  const { member } = event
  const others = slice.members.filter(({ vserver }) => vserver !== member.vserver)
  const members = event.type === 'member:leave' ? others : [...others, member]
  return withMembers(slice, members)
}

/** By name, with the earliest end among them. */
function withMembers(slice: SliceView, members: readonly MemberView[]): SliceView {
  const { notAfter: _before, ...rest } = slice
  const sorted = [...members].sort((a, b) => (a.nodeName < b.nodeName ? -1 : 1))
  const ends = sorted.map(({ notAfter }) => notAfter)
  return { ...rest, members: sorted, ...(ends.length === 0 ? {} : { notAfter: Math.min(...ends) }) }
}

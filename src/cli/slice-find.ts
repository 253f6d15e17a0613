/** Which slice, and which member of it, somebody means. */
import type { ControlCaller } from '../daemon/control-client.ts'
import { findByPrefix } from '../daemon/prefix.ts'
import type { MemberView, SliceView } from './slice-view.ts'

/** The slice of that name, or whose name begins so. Throws `NOT_FOUND`, `AMBIGUOUS_ID`. */
export async function findSlice(call: ControlCaller, given: string, signal: AbortSignal): Promise<SliceView> {
  const { slices } = await call('sliceList', { brief: true }, { signal })
  return findByPrefix(slices, given, { what: 'slice', namesOf: ({ name }) => [name] })
}

/** The id of the lease that stands for a member, by the beginning of any of its names. */
export function findMember(slice: SliceView, given: string): string {
  const namesOf = (member: MemberView): string[] => [
    member.nodeName,
    member.node,
    member.lease,
    member.vserver
  ]
  return findByPrefix(slice.members, given, { what: `member of ${slice.name}`, namesOf }).lease
}

/** All of a slice, or the one member given: as the daemon's methods on members take it. */
export async function findMembers(
  call: ControlCaller,
  given: string,
  member: string | undefined,
  signal: AbortSignal
): Promise<{ readonly slice: string; readonly member?: string }> {
  const slice = await findSlice(call, given, signal)
  return { slice: slice.name, ...(member === undefined ? {} : { member: findMember(slice, member) }) }
}

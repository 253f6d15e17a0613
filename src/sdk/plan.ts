/** What a slice would be made of, without taking anything. */
import type { PlannedMemberView } from '../daemon/control-protocol.ts'
import type { Rejection } from '../protocol/broker-protocol.ts'
import { wantOf } from '../service/slice-want.ts'
import type { CallSettings } from './client.ts'
import { describe, type SliceWish } from './description.ts'
import type { Session } from './session.ts'

export interface SlicePlan {
  /** Whether there are as many members as the slice needs at least. */
  readonly satisfiable: boolean
  /** Why it is not, in a sentence. */
  readonly reason?: string
  readonly members: readonly PlannedMemberView[]
  /** Of the other nodes every condition that they fail; none of those that are only not needed. */
  readonly rejections: readonly Rejection[]
}

export interface PlanSettings extends CallSettings {
  /** The principal of another peer whose broker is asked, or `any` that is found; default this peer's own. */
  readonly broker?: string
}

export async function plan(
  session: Session,
  description: SliceWish,
  { broker, signal }: PlanSettings = {}
): Promise<SlicePlan> {
  const members: PlannedMemberView[] = []
  const rejections: Rejection[] = []
  const result = await session.call(
    'plan',
    { want: wantOf(describe(description)), ...(broker === undefined ? {} : { broker }) },
    {
      onItem: ({ member, rejection }) => {
        if (member !== undefined) members.push(member)
        if (rejection !== undefined) rejections.push(rejection)
      },
      ...(signal === undefined ? {} : { signal })
    }
  )
  return { ...result, members, rejections }
}

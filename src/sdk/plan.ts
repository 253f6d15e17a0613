/** What a slice would be made of, without taking anything. */
import type { PlannedMemberView } from '../daemon/control-protocol.ts'
import type { Rejection } from '../protocol/broker-protocol.ts'
import type { SliceDescription } from '../service/slice.ts'
import { wantOf } from '../service/slice-want.ts'
import type { CallSettings } from './client.ts'
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

export async function plan(
  session: Session,
  description: Omit<SliceDescription, 'files'>,
  { signal }: CallSettings = {}
): Promise<SlicePlan> {
  const members: PlannedMemberView[] = []
  const rejections: Rejection[] = []
  const result = await session.call(
    'plan',
    { want: wantOf({ ...description, files: [] }) },
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

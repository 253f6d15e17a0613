/** The labelled points at which a node is killed, as data: what it was doing, and the moment of `moments.ts` that is meant. */

export const OPERATIONS = ['redeem', 'claim', 'renew', 'delete', 'expire', 'recover'] as const
export type Operation = (typeof OPERATIONS)[number]

/** The daemon is killed from outside, as soon as the holder has its reply. */
export const RECEIVED = 'received'

export interface Point {
  readonly name: string
  readonly operation: Operation
  readonly moment: string
}

const MOMENTS: Readonly<Record<Operation, readonly (readonly [label: string, moment: string])[]>> = {
  redeem: [
    ['demand taken', 'called: newLease'],
    ['intent not yet written', 'commit begun: making'],
    ['intent written', 'journal written: making'],
    ['intent synced', 'journal synced: making'],
    ['intent being marked', 'mark written: making'],
    ['intent durable', 'commit done: making'],
    ['runtime creating', 'runtime create begun'],
    ['runtime created, no link', 'runtime create ended'],
    ['link moved in', 'nsenter ip ended'],
    ['rules being set', 'nft begun'],
    ['link stands', 'attach done'],
    ['init started, not recorded', 'runtime start ended'],
    ['vserver created', 'create done'],
    ['active written', 'journal written: active'],
    ['active not yet marked', 'journal synced: active'],
    ['active marked', 'mark synced: active'],
    ['active durable', 'commit done: active'],
    ['reply not yet written', 'answered: newLease'],
    ['reply received', RECEIVED]
  ],
  // A redemption that takes a vserver which was made ahead.
  claim: [
    ['spare not yet taken', 'create begun'],
    ['spare recorded, link not yet renamed', 'rename begun'],
    ['link renamed', 'rename done'],
    ['rules being set', 'nft begun'],
    ['link stands', 'attach done'],
    ['vserver created', 'create done'],
    ['active durable', 'commit done: active']
  ],
  renew: [
    ['demand taken', 'called: renewLease'],
    ['renewal not yet written', 'commit begun: renewed'],
    ['renewal written', 'journal written: renewed'],
    ['renewal not yet marked', 'journal synced: renewed'],
    ['renewal marked', 'mark synced: renewed'],
    ['renewal durable', 'commit done: renewed'],
    ['reply not yet written', 'answered: renewLease'],
    ['reply received', RECEIVED]
  ],
  delete: [
    ['demand taken', 'called: deleteLease'],
    ['ending not yet written', 'commit begun: ending'],
    ['ending not yet marked', 'journal synced: ending'],
    ['ending durable', 'commit done: ending'],
    ['link gone, rules stand', 'ip ended'],
    ['link detached', 'detach done'],
    ['runtime deleting', 'runtime delete begun'],
    ['disk going', 'btrfs begun'],
    ['destroyed, not recorded', 'destroy done'],
    ['ended not yet marked', 'journal synced: ended'],
    ['ended durable', 'commit done: ended'],
    ['reply not yet written', 'answered: deleteLease'],
    ['reply received', RECEIVED]
  ],
  expire: [
    ['ending not yet written', 'commit begun: ending'],
    ['ending not yet marked', 'journal synced: ending'],
    ['ending durable', 'commit done: ending'],
    ['link detached', 'detach done'],
    ['runtime deleting', 'runtime delete begun'],
    ['destroyed, not recorded', 'destroy done'],
    ['ended not yet marked', 'journal synced: ended'],
    ['ended durable', 'commit done: ended']
  ],
  recover: [
    ['half-made vserver being destroyed', 'runtime delete begun'],
    ['half-made vserver destroyed', 'destroy done'],
    ['withdrawal not yet marked', 'journal synced: withdrawn'],
    ['withdrawal durable', 'commit done: withdrawn']
  ]
}

/** Where a node is killed that is then killed again while it recovers. */
export const BEFORE_RECOVERY = 'create done'

export const POINTS: readonly Point[] = OPERATIONS.flatMap((operation) =>
  MOMENTS[operation].map(([label, moment]) => ({ name: `${operation}: ${label}`, operation, moment }))
)

/** Every point so many times, the operations in turn, so that leases are made about as fast as they are ended. */
export function rounds(times: number): Point[] {
  const left = OPERATIONS.map((operation) =>
    Array.from({ length: times }, () => POINTS.filter((point) => point.operation === operation)).flat()
  )
  const longest = Math.max(...left.map((points) => points.length))
  return Array.from({ length: longest }, (_round, index) =>
    left.flatMap((points) => points[index] ?? [])
  ).flat()
}

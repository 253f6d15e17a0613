/** Where the node's tables drop packets, counted by reason. */
import { ANY_LINK } from './address-plan.ts'
import { countDrop, countUserDrop, dropCountsSet, userDropCountsSet } from './drop-counts.ts'

/**
 * Why the node's tables drop a packet; each is counted for the node, and for the vserver that sent the packet. What came from
 * elsewhere is charged to nobody, but for `flows` of a vserver that takes no more connections. docs/operating.md says what
 * each means.
 */
export const DROP_REASONS = [
  'private',
  'denied',
  'untracked',
  'malformed',
  'forged',
  'device',
  'flows',
  'inward',
  'node',
  'port',
  'destinations',
  'nobody'
] as const
export type DropReason = (typeof DROP_REASONS)[number]
/** Those of packets of vservers that share the node's network. */
export const USER_DROP_REASONS = [
  'forged',
  'port',
  'device',
  'denied',
  'destinations'
] as const satisfies readonly DropReason[]

/** What a vserver has too much of, which the table of both families says. */
export const BOUND_DROP_REASONS = ['flows', 'destinations'] as const satisfies readonly DropReason[]
/** What the table of each family says. */
export const FAMILY_DROP_REASONS = DROP_REASONS.filter(
  (reason) => !(BOUND_DROP_REASONS as readonly DropReason[]).includes(reason)
)

/** The counter's name; the prefix keeps it clear of nft's own words. */
export function dropCounter(reason: DropReason): string {
  return `dropped_${reason}`
}

/** The verdict on a packet that is dropped for a reason. */
export const drop = (reason: DropReason): string => `goto drop_${reason}`

/** Where packets end, with what counts them. The table has a set `users` of those that share the node's network. */
export function dropChains(reasons: readonly DropReason[]): string {
  const chains = reasons.map((reason) => {
    const toVserver =
      reason === 'flows' ? `iifname != ${ANY_LINK} oifname ${ANY_LINK} ${countDrop(reason, 'oifname')}` : ''
    const ofUsers = (USER_DROP_REASONS as readonly DropReason[]).includes(reason)
    return `
  counter ${dropCounter(reason)} {}
  chain drop_${reason} {
    iifname ${ANY_LINK} ${countDrop(reason)}
    ${toVserver}
    ${ofUsers ? countUserDrop(reason) : ''}
    counter name ${dropCounter(reason)} drop
  }`
  })
  return `  set ${dropCountsSet(reasons.length)}
  set ${userDropCountsSet(USER_DROP_REASONS.length)}${chains.join('')}`
}

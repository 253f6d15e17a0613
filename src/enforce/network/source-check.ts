/**
 * The source check: an allowlist on the host's end of each link, in a netdev ingress chain, so that it sees every frame a
 * vserver can make, whatever it made it with (design §5: the same rules inside the vserver leaked every spoofed packet).
 */
import type { LinkPlan } from './address-plan.ts'
import { GRE_CHECK, greCheckLines } from './gre-keys.ts'

export const SOURCE_CHECK_TABLE = 'netdev slicenet'

/** Why a frame was refused; each is counted for each link. */
export const REFUSALS = ['source', 'protocol', 'ipv6', 'other'] as const
export type Refusal = (typeof REFUSALS)[number]

/** Lines for nft that make the table, whose sets are empty then. */
export function sourceCheckTable(): string[] {
  return [`add table ${SOURCE_CHECK_TABLE}`, ...greCheckLines(SOURCE_CHECK_TABLE)]
}

/** Lines for nft that put the check on a link, or renew it without a gap. The device must exist. */
export function sourceCheckLines(plan: LinkPlan): string[] {
  const { device, address, insideMac } = plan
  const chain = `${SOURCE_CHECK_TABLE} ${device}`
  const rule = (text: string): string => `add rule ${chain} ${text}`
  const refuse = (refusal: Refusal): string => `counter name ${refusalCounter(plan, refusal)} drop`
  return [
    ...REFUSALS.map((refusal) => `add counter ${SOURCE_CHECK_TABLE} ${refusalCounter(plan, refusal)}`),
    `add chain ${chain} { type filter hook ingress device "${device}" priority -500; policy drop; }`,
    `flush chain ${chain}`,
    // The frame's type is compared, not the packet's, so that a VLAN tag in front of IPv4 does not pass.
    rule(`ether saddr ${insideMac} ether type ip ip saddr ${address} ip protocol { icmp, tcp, udp } accept`),
    rule(`ether saddr ${insideMac} ether type ip ip saddr ${address} ${GRE_CHECK} accept`),
    rule(`ether saddr ${insideMac} ether type arp arp saddr ip ${address} accept`),
    rule(`ether type ip ether saddr != ${insideMac} ${refuse('source')}`),
    rule(`ether type ip ip saddr != ${address} ${refuse('source')}`),
    rule(`ether type ip ${refuse('protocol')}`),
    rule(`ether type ip6 ${refuse('ipv6')}`),
    rule(refuse('other'))
  ]
}

/** Lines for nft that take the check away, whether or not it is there. The device must be gone before. */
export function sourceCheckRemoval(device: string): string[] {
  const chain = `${SOURCE_CHECK_TABLE} ${device}`
  return [
    // The kernel may have removed the chain with its device; adding first makes deleting certain.
    `add chain ${chain}`,
    `flush chain ${chain}`,
    `delete chain ${chain}`,
    ...REFUSALS.flatMap((refusal) => {
      const counter = `${SOURCE_CHECK_TABLE} ${refusalCounter({ device }, refusal)}`
      return [`add counter ${counter}`, `delete counter ${counter}`]
    })
  ]
}

export function refusalCounter(plan: Pick<LinkPlan, 'device'>, refusal: Refusal): string {
  return `${plan.device}_${refusal}`
}

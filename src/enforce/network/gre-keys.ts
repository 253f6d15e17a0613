/**
 * GRE by key: a vserver owns a key (RFC 2890) as it owns a port, and what bears it leaves from the node's address and
 * reaches its owner. Connection tracking of the kernel does not look at keys, and so would take two vservers with one peer
 * for one connection: these packets are translated one by one instead. Only version 0 with a key passes, with or without a
 * sequence number; the checksum of GRE moves the key.
 */
import { ANY_LINK } from './address-plan.ts'
import { ICMP_ERRORS } from './icmp-queries.ts'
import { addressesOf, translated, type UplinkPlace } from './uplink-rules.ts'

/** A GRE header whose third and fourth halfword are a key. */
const KEYED = '@th,0,16 & 0xefff == 0x2000'
/** Matches packets from a vserver that bear a key of its own, by the set of this name. */
const own = (set: string): string => `ip protocol gre ${KEYED} ip saddr . @th,32,32 @${set}`

/** Sets and the map of the node's table, as nft declares them. */
export const GRE_SETS = `
  map gre_owner { typeof @th,32,32 : ip daddr; flags interval; }
  set gre_owned { typeof ip saddr . @th,32,32; flags interval; }
  set gre_taken { typeof @th,32,32; flags interval; }`

/** Lines for nft that make the set of keys of the source check's table, which must exist, and empty it. */
export function greCheckLines(table: string): string[] {
  return [
    `add set ${table} gre_keys { typeof ip saddr . @th,32,32; flags interval; }`,
    `flush set ${table} gre_keys`
  ]
}

/**
 * In the source check: what passes beside ICMP, TCP and UDP. In a later fragment nft takes the data for a header; the first
 * alone comes to nothing.
 */
export const GRE_CHECK = `ip frag-off & 0xbfff == 0 ${own('gre_keys')}`

/** The chains of the node's table that keep connection tracking from looking at keys. */
export function greChains(uplinks: readonly UplinkPlace[]): string {
  const taken = `ip protocol gre ip daddr ${addressesOf(uplinks)} ${KEYED} @th,32,32 @gre_taken notrack`
  return `
  chain gre_untracked {
    type filter hook prerouting priority -300; policy accept;
    ip protocol gre iifname ${ANY_LINK} notrack
    ${taken}
  }
  chain gre_untracked_local {
    type filter hook output priority -300; policy accept;
    ${taken}
  }`
}

/** Rules for what comes to the node's addresses and has no connection. */
export const GRE_TO_OWNER: readonly string[] = [
  `ip protocol gre ${KEYED} ip daddr set @th,32,32 map @gre_owner`,
  // The key of the packet that the error is about, when its header has no options.
  `ct state invalid ${ICMP_ERRORS} @th,64,8 0x45 @th,136,8 47 @th,224,16 & 0xefff == 0x2000 ip daddr set @th,256,32 map @gre_owner`
]

/** A rule for what leaves a vserver and has no connection. */
export function greFromOwner(uplinks: readonly UplinkPlace[]): string {
  return translated(
    uplinks,
    ({ match, address }) => `iifname ${ANY_LINK} ${match}${own('gre_owned')} ip saddr set ${address}`
  )
}

/** Rules of the chain that looks at what a vserver sends; `drop` ends what is not its own. */
export function greOutward(drop: string): string {
  return `ip protocol gre jump outward_gre
  }
  chain outward_gre {
    ${own('gre_owned')} return
    ${drop}`
}

/** A rule of the chain that looks at what comes to a vserver. */
export const GRE_INWARD = `ip protocol gre ${KEYED} ip daddr . @th,32,32 @gre_owned return`
/** Matches what a vserver on the node's own network may not send. */
export const GRE_TAKEN = `ip protocol gre ${KEYED} @th,32,32 @gre_taken`

/**
 * The questions and answers of ICMP that bear an identifier, which a vserver may own as it owns a port: echo and timestamp.
 * The kernel's connection tracking knows two more, information and address mask, that nobody uses (RFC 6918): they leave no
 * vserver.
 */

/** Matches questions, and answers, by their types. */
export const ICMP_QUESTIONS = 'icmp type { echo-request, timestamp-request }'
export const ICMP_ANSWERS = 'icmp type { echo-reply, timestamp-reply }'
/** Matches what says something of another packet. */
export const ICMP_ERRORS = 'icmp type { destination-unreachable, time-exceeded, parameter-problem }'
/** Where both have their identifier; nft's own name for it stands for that of echo alone. */
export const ICMP_ID = '@th,32,16'

/** A rule of the chain that looks at what a vserver sends; `drop` ends what nobody uses. */
export function icmpOutward(drop: string): string {
  return `icmp type { info-request, info-reply, address-mask-request, address-mask-reply } ${drop}`
}

/**
 * The node's nft table of IPv4: the chains that both families have, with GRE, and rules for those that share the node's network.
 * Every rule is about links of vservers; what else the machine forwards is left alone.
 */
import { isIP, isIPv4 } from 'node:net'
import { SlicenetError } from '../../base/errors.ts'
import { SHARED_PORTS, VSERVER_POOL } from './address-plan.ts'
import { drop, dropChains, FAMILY_DROP_REASONS } from './drop-chains.ts'
import { familyChains, type Family } from './family-chains.ts'
import { GRE_INWARD, GRE_TAKEN, GRE_TO_OWNER, greChains, greFromOwner, greOutward } from './gre-keys.ts'
import { ICMP_ANSWERS, ICMP_ERRORS, ICMP_ID, ICMP_QUESTIONS, icmpOutward } from './icmp-queries.ts'
import { NODE_TABLE, OWNER_SETS } from './owned-ports.ts'
import {
  devicesOf,
  SHAPED_UPLINKS,
  uplinkMarks,
  type MarkedUplink,
  type UplinkPlace
} from './uplink-rules.ts'

export interface NodeTableInit {
  /** Each with the address that the world sees of what leaves by it. */
  readonly uplinks: readonly MarkedUplink[]
  /** CIDR ranges that the node's policy lets vservers reach although they are private. */
  readonly allowedPrivateRanges: readonly string[]
}

/** Not on the internet (RFC 6890): loopback, link-local with the cloud's metadata, private, benchmarking, multicast. */
export const DENIED = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '224.0.0.0/3'
]

/** Text for nft that puts the table in place of the one before in one transaction, without its elements. */
export function nodeTable(init: NodeTableInit): string {
  const ranges = init.allowedPrivateRanges.filter((range) => isIPv4(range.split('/')[0] ?? ''))
  const allowed = ranges.length === 0 ? '' : `elements = { ${ranges.join(', ')} }`
  return `
add table ${NODE_TABLE}
delete table ${NODE_TABLE}
table ${NODE_TABLE} {
${OWNER_SETS}
  set denied { type ipv4_addr; flags interval; elements = { ${DENIED.join(', ')} } }
  set allowed { type ipv4_addr; flags interval; auto-merge; ${allowed} }
  set users { typeof meta skuid; flags interval; }
${dropChains(FAMILY_DROP_REASONS)}
${familyChains(family(init.uplinks), init.uplinks)}
${greChains(init.uplinks)}
${uplinkMarks(init.uplinks)}
${users(init.uplinks)}
}
`
}

function family(uplinks: readonly UplinkPlace[]): Family {
  return {
    ip: 'ip',
    pool: VSERVER_POOL,
    questions: ICMP_QUESTIONS,
    answers: ICMP_ANSWERS,
    id: ICMP_ID,
    ping: 'icmp type echo-request',
    errors: ICMP_ERRORS,
    // When its header has no options.
    headOf: '@th,64,8 0x45',
    inner: '@th,136,8 . @th,224,16',
    translatable: 'ip protocol { icmp, tcp, udp }',
    udp: 'ip protocol udp',
    cutTcp: 'ip protocol tcp ip length < 40',
    shared: (address) => `${address}:${SHARED_PORTS.first}-${SHARED_PORTS.last}`,
    toOwner: GRE_TO_OWNER,
    fromOwner: [greFromOwner(uplinks)],
    classes: [
      'ip protocol icmp meta priority set ip saddr map @icmp_class',
      'ip hdrlength > 5 meta priority set ip saddr map @options_class'
    ],
    outwardFirst: [icmpOutward(drop('untracked'))],
    outwardLast: [greOutward(drop('untracked'))],
    inwardLast: [GRE_INWARD],
    departed: [
      `ct status dnat ${drop('device')}`,
      // Answers to what it began itself.
      `ct direction reply ct status snat ct original ip saddr ${VSERVER_POOL} ${drop('device')}`,
      `ct state { invalid, untracked } ${drop('device')}`
    ]
  }
}

/** Throws `CONFIG_INVALID` at what is no range of addresses. */
export function requireRanges(ranges: readonly string[]): void {
  for (const range of ranges) {
    const [address = '', bits = '0', rest] = range.split('/')
    const most = isIPv4(address) ? 32 : isIP(address) === 6 && !address.includes('%') ? 128 : -1
    if (/^\d{1,3}$/.test(bits) && Number(bits) <= most && rest === undefined) continue
    throw new SlicenetError('CONFIG_INVALID', `${JSON.stringify(range)} is no range of addresses`, {
      hint: 'write it as 192.0.2.0/24 or 2001:db8::/32'
    })
  }
}

/** Vservers that share the node's network reach what all others reach, and its own ports, and send from nobody's port. */
function users(uplinks: readonly UplinkPlace[]): string {
  return `
  chain from_users {
    # With CAP_NET_RAW a socket may be bound to any address.
    fib saddr type != local ${drop('forged')}
    meta l4proto { tcp, udp } meta l4proto . th sport @taken ${drop('port')}
    ${ICMP_QUESTIONS} ${ICMP_ID} @icmp_taken ${drop('port')}
    ${GRE_TAKEN} ${drop('port')}
    oifname ${devicesOf(uplinks)} oif != @${SHAPED_UPLINKS} ${drop('device')}
    ct direction reply accept
    oifname "lo" accept
    oif != @${SHAPED_UPLINKS} ${drop('device')}
    ip daddr @allowed accept
    ip daddr @denied ${drop('denied')}
  }`
}

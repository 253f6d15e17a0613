/**
 * Keeps the kernel of a vserver with raw sockets from answering for its programs: no reset and no ICMP unreachable for what
 * comes to an owned port that none of its sockets but raw ones takes. Where an ordinary socket does, all is as ever. Only
 * inside can be told which sockets there are, so the rules stand in the vserver's own network namespace. They are no check:
 * its root may take them away and hurts nobody but its own programs.
 */
import { run } from '../../base/host-program.ts'
import type { Logger } from '../../base/log.ts'
import type { PortRange } from '../../ticket/ports.ts'
import type { VserverLink } from '../network.ts'
import { mergeRanges } from './owned-ports.ts'

const TABLE = 'inet slicenet_silence'
const MARK = '0x51ce'

/** After it came to a link, or its ports changed. A link without it is better than none: only its programs suffer. */
export async function silenceLink(
  { id, pid, ports, rawSockets }: VserverLink,
  before: readonly PortRange[] | undefined,
  logger: Logger
): Promise<void> {
  if (rawSockets !== true || (ports.length === 0 && before === undefined)) return
  const process = await pid
  try {
    await silenceKernel(process, ports)
  } catch (error) {
    logger.error('the kernel of a vserver answers beside its raw sockets', { id, error })
  }
}

/** Makes it so for these ports and no others, in the network namespace of process `pid`. Idempotent. */
async function silenceKernel(pid: number, ports: readonly PortRange[]): Promise<void> {
  // What the kernel sends in answer to a packet then has the packet's mark.
  const settings = ['ipv4', 'ipv6'].map((family) => `/proc/sys/net/${family}/fwmark_reflect`)
  const script = `for each in ${settings.join(' ')}; do [ ! -e $each ] || echo 1 > $each; done && exec nft -f -`
  await run('nsenter', [`--net=/proc/${pid}/ns/net`, 'sh', '-c', script], { input: silenceRules(ports) })
}

function silenceRules(ports: readonly PortRange[]): string {
  const elements = mergeRanges(ports)
    .filter(({ protocol }) => protocol === 'tcp' || protocol === 'udp')
    .map(({ protocol, first, last }) => `${protocol} . ${first}-${last}`)
  const declared = elements.length === 0 ? '' : `elements = { ${elements.join(', ')} }`
  return `
add table ${TABLE}
delete table ${TABLE}
table ${TABLE} {
  set owned { type inet_proto . inet_service; flags interval; ${declared} }
  chain arriving {
    type filter hook prerouting priority 0; policy accept;
    meta l4proto . th dport @owned goto unheard
  }
  chain unheard {
    # Matches when there is a socket, whatever it is bound to.
    socket wildcard <= 1 return
    meta mark set ${MARK}
  }
  chain leaving {
    type filter hook output priority 0; policy accept;
    meta mark ${MARK} tcp flags & rst == rst counter drop
    meta mark ${MARK} icmp type destination-unreachable counter drop
    meta mark ${MARK} icmpv6 type destination-unreachable counter drop
  }
}
`
}

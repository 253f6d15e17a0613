/**
 * Counts what vservers send that the kernel's connection tracking takes for no part of a connection (FIN, NULL, Xmas of
 * raw sockets), by addresses and ports, in a table of its own that outlives the daemon. It is bounded: what finds no room
 * is counted without them.
 */
import { run } from '../../base/host-program.ts'
import { LIMITS } from '../../base/limits.ts'
import { ANY_LINK } from './address-plan.ts'
import { applyRules } from './ruleset.ts'
import { FLOW_PROTOCOLS, type FlowProtocol } from './tracked-line.ts'

export const UNTRACKED_TABLE = 'ip slicenet_flows'
const KEPT_SECONDS = 600

export interface UntrackedCount {
  /** The vserver's address inside. */
  readonly address: string
  readonly protocol: FlowProtocol
  readonly sourcePort: number
  readonly destination: string
  readonly destinationPort: number
  readonly packets: number
  readonly bytes: number
  /** Seconds since the last packet. */
  readonly quietSeconds: number
}

/** Puts the counting in place; counts of before stay. */
export async function countUntracked(): Promise<void> {
  const chain = `${UNTRACKED_TABLE} leaving`
  const key = 'ip saddr . meta l4proto . th sport . ip daddr . th dport'
  await applyRules([
    `add table ${UNTRACKED_TABLE}`,
    `add set ${UNTRACKED_TABLE} untracked { type ipv4_addr . inet_proto . inet_service . ipv4_addr . inet_service; size ${LIMITS.untrackedFlowsMax}; flags dynamic,timeout; timeout ${KEPT_SECONDS}s; counter; }`,
    `add counter ${UNTRACKED_TABLE} no_room`,
    // Before the source address is translated (node-table.ts), after everything that is dropped is.
    `add chain ${chain} { type filter hook postrouting priority 80; policy accept; }`,
    `flush chain ${chain}`,
    `add rule ${chain} iifname != ${ANY_LINK} accept`,
    `add rule ${chain} ct state != invalid accept`,
    `add rule ${chain} ip protocol { tcp, udp } update @untracked { ${key} } accept`,
    `add rule ${chain} counter name no_room`
  ])
}

/** What was counted in the last ten minutes of each flow's life. */
export async function readUntracked(): Promise<UntrackedCount[]> {
  const printed = JSON.parse(
    await run('nft', ['-j', 'list', 'set', ...UNTRACKED_TABLE.split(' '), 'untracked'])
  ) as {
    readonly nftables?: readonly { readonly set?: { readonly elem?: readonly Element[] } }[]
  }
  const elements = printed.nftables?.flatMap(({ set }) => set?.elem ?? []) ?? []
  return elements.flatMap(({ elem }) => {
    const [address, protocol, sourcePort, destination, destinationPort] = elem?.val?.concat ?? []
    const { packets, bytes } = elem?.counter ?? {}
    if (typeof address !== 'string' || typeof destination !== 'string') return []
    if (!isFlowProtocol(protocol) || packets === undefined || bytes === undefined) return []
    const ports = { sourcePort: Number(sourcePort), destinationPort: Number(destinationPort) }
    const quietSeconds = Math.max(0, KEPT_SECONDS - (elem?.expires ?? KEPT_SECONDS))
    return [{ address, protocol, destination, ...ports, packets, bytes, quietSeconds }]
  })
}

interface Element {
  readonly elem?: {
    readonly val?: { readonly concat?: readonly (string | number)[] }
    readonly expires?: number
    readonly counter?: { readonly packets?: number; readonly bytes?: number }
  }
}

function isFlowProtocol(name: unknown): name is FlowProtocol {
  return (FLOW_PROTOCOLS as readonly unknown[]).includes(name)
}

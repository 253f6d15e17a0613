/**
 * Counts what vservers send that the kernel's connection tracking takes for no part of a connection (FIN, NULL, Xmas of
 * raw sockets, unasked echo replies) or does not look at (GRE), by addresses and ports, in tables of its own that outlive
 * the daemon. It is bounded, in all and for each vserver: what finds no room is counted without them.
 */
import { run } from '../../base/host-program.ts'
import { LIMITS } from '../../base/limits.ts'
import { isPortProtocol, type PortProtocol } from '../../ticket/ports.ts'
import { ANY_LINK } from './address-plan.ts'
import { applyRules, possibleTables, readCounters } from './ruleset.ts'

export const UNTRACKED_TABLE = 'ip slicenet_flows'
export const UNTRACKED_TABLE_6 = 'ip6 slicenet_flows'
const KEPT_SECONDS = 600
/** New flows of one vserver: with what is kept of them it has a ninth of the room at most. */
const NEW_FLOWS = 'limit rate over 5/second burst 4096 packets'

const BARE_SET = 'bare_leaving'

function setOf(protocol: 'tcp' | 'udp'): string {
  return `${protocol}_leaving`
}

export interface UntrackedCount {
  /** The vserver's address inside. */
  readonly address: string
  readonly protocol: PortProtocol
  /** 0 of ICMP and GRE, as is the other. */
  readonly sourcePort: number
  readonly destination: string
  readonly destinationPort: number
  /** By which it left. */
  readonly device: string
  readonly packets: number
  readonly bytes: number
  /** Seconds since the last packet. */
  readonly quietSeconds: number
}

const TABLES = [
  { table: UNTRACKED_TABLE, ip: 'ip', address: 'ipv4_addr', bare: '{ icmp, gre }' },
  { table: UNTRACKED_TABLE_6, ip: 'ip6', address: 'ipv6_addr', bare: 'icmpv6' }
] as const

/** Those that the kernel can have. */
async function possible(): Promise<readonly (typeof TABLES)[number][]> {
  const names = await possibleTables(TABLES.map(({ table }) => table))
  return TABLES.filter(({ table }) => names.includes(table))
}

/** Puts the counting in place; counts of before stay. */
export async function countUntracked(): Promise<void> {
  await applyRules((await possible()).flatMap(countingLines))
}

function countingLines({ table, ip, address, bare }: (typeof TABLES)[number]): string[] {
  const chain = `${table} leaving`
  const ported = (['tcp', 'udp'] as const).map((protocol) => ({
    protocol,
    set: setOf(protocol),
    type: `${address} . inet_service . ${address} . inet_service . ifname`,
    // Five parts are as many as a key of nft can have.
    key: `${ip} saddr . ${protocol} sport . ${ip} daddr . ${protocol} dport . oifname`
  }))
  const kinds = [
    ...ported,
    {
      protocol: bare,
      set: BARE_SET,
      type: `${address} . inet_proto . ${address} . ifname`,
      key: `${ip} saddr . meta l4proto . ${ip} daddr . oifname`
    }
  ]
  const bounds = `size ${LIMITS.untrackedFlowsMax}; flags dynamic,timeout; timeout ${KEPT_SECONDS}s;`
  // Does not match where the vserver may still add one.
  const isOver = `update @new_flows { ${ip} saddr ${NEW_FLOWS} }`
  return [
    `add table ${table}`,
    ...kinds.map(({ set, type }) => `add set ${table} ${set} { type ${type}; ${bounds} counter; }`),
    `add set ${table} new_flows { type ${address}; ${bounds} }`,
    `add counter ${table} no_room`,
    // Before the source address is translated (node-table.ts), after everything that is dropped is.
    `add chain ${chain} { type filter hook postrouting priority 80; policy accept; }`,
    `flush chain ${chain}`,
    `add rule ${chain} iifname != ${ANY_LINK} accept`,
    `add rule ${chain} ct state { new, established, related } accept`,
    // One that is there already needs no room; a lookup that finds none counts nothing.
    ...kinds.flatMap(({ protocol, set, key }) => [
      `add rule ${chain} meta l4proto ${protocol} ${key} != @${set} ${isOver} counter name no_room accept`,
      `add rule ${chain} meta l4proto ${protocol} update @${set} { ${key} } accept`
    ]),
    `add rule ${chain} counter name no_room`
  ]
}

/** What was counted in the last ten minutes of each flow's life. */
export async function readUntracked(): Promise<UntrackedCount[]> {
  const tables = await possible()
  const counts = await Promise.all(tables.map(async ({ table }) => readTable(table)))
  return counts.flat()
}

async function readTable(table: string): Promise<UntrackedCount[]> {
  const [tcp, udp, bare] = await Promise.all([
    elementsOf(table, setOf('tcp')),
    elementsOf(table, setOf('udp')),
    elementsOf(table, BARE_SET)
  ])
  return [
    ...tcp.flatMap((element) => portedCount('tcp', element)),
    ...udp.flatMap((element) => portedCount('udp', element)),
    ...bare.flatMap(bareCount)
  ]
}

function portedCount(protocol: 'tcp' | 'udp', { elem }: Element): UntrackedCount[] {
  const [address, sourcePort, destination, destinationPort, device] = elem?.val?.concat ?? []
  const ends = { address, destination, device }
  return countOf({ protocol, ...ends, ports: [Number(sourcePort), Number(destinationPort)] }, elem)
}

function bareCount({ elem }: Element): UntrackedCount[] {
  const [address, name, destination, device] = elem?.val?.concat ?? []
  const protocol = name === 'ipv6-icmp' ? 'icmp' : String(name)
  return countOf({ protocol, address, destination, device, ports: [0, 0] }, elem)
}

/** None of what is no such flow. */
function countOf(
  {
    protocol,
    ports: [sourcePort, destinationPort],
    ...ends
  }: {
    readonly protocol: string
    readonly address: unknown
    readonly destination: unknown
    readonly device: unknown
    readonly ports: readonly [number, number]
  },
  elem: Element['elem']
): UntrackedCount[] {
  const { address, destination, device } = ends
  const { packets, bytes } = elem?.counter ?? {}
  if (typeof address !== 'string' || typeof destination !== 'string' || typeof device !== 'string') return []
  if (!isPortProtocol(protocol) || packets === undefined || bytes === undefined) return []
  const quietSeconds = Math.max(0, KEPT_SECONDS - (elem?.expires ?? KEPT_SECONDS))
  const flow = { address, protocol, sourcePort, destination, destinationPort, device }
  return [{ ...flow, packets, bytes, quietSeconds }]
}

/** Packets that found no room, since the table was made. */
export async function readNoRoom(): Promise<number> {
  const tables = await possible()
  const counters = await Promise.all(tables.map(async ({ table }) => readCounters(table)))
  return counters.reduce((sum, ofTable) => sum + (ofTable.get('no_room') ?? 0), 0)
}

async function elementsOf(table: string, set: string): Promise<readonly Element[]> {
  const printed = JSON.parse(await run('nft', ['-j', 'list', 'set', ...table.split(' '), set])) as {
    readonly nftables?: readonly { readonly set?: { readonly elem?: readonly Element[] } }[]
  }
  return printed.nftables?.flatMap((each) => each.set?.elem ?? []) ?? []
}

interface Element {
  readonly elem?: {
    readonly val?: { readonly concat?: readonly (string | number)[] }
    readonly expires?: number
    readonly counter?: { readonly packets?: number; readonly bytes?: number }
  }
}

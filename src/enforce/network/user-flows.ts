/**
 * The flows of vservers that share the node's network: connection tracking does not know whose of the node's connections
 * are theirs, so what their users send is counted by addresses and ports, and what comes back by the same, in a table of
 * its own for each family. They are there from the first such vserver on, outlive the daemon, and are bounded, in all and for
 * each of them.
 */
import { run } from '../../base/host-program.ts'
import { LIMITS } from '../../base/limits.ts'
import type { PortProtocol } from '../../ticket/ports.ts'
import { blockOf, IDS_MASK } from './drop-counts.ts'
import type { Flow, FlowCount } from './flow.ts'
import { possibleTables, readCounters } from './ruleset.ts'

const USER_FLOWS_TABLE = 'ip slicenet_user_flows'
const USER_FLOWS_TABLE_6 = 'ip6 slicenet_user_flows'
export const USER_FLOWS_TABLES = [USER_FLOWS_TABLE, USER_FLOWS_TABLE_6] as const
type UserFlowsTable = (typeof USER_FLOWS_TABLES)[number]

const KEPT_SECONDS = 600
/** New flows of one vserver. */
const NEW_FLOWS = 'limit rate over 5/second burst 4096 packets'

interface UserIds {
  readonly first: number
  readonly last: number
}

/** Lines for nft that count what these users send, both included of each, as far as the kernel can; counts of before stay. */
export async function userFlowLines(ids: readonly UserIds[]): Promise<string[]> {
  const tables = await possibleTables(USER_FLOWS_TABLES)
  return tables.flatMap((table) => linesOf(table, ids))
}

function linesOf(table: UserFlowsTable, ids: readonly UserIds[]): string[] {
  const ip = table === USER_FLOWS_TABLE_6 ? 'ip6' : 'ip'
  const timed = `size ${LIMITS.untrackedFlowsMax}; flags dynamic,timeout; timeout ${KEPT_SECONDS}s;`
  // More than five parts are not read back by nft 1.0, so that there is a set for each protocol.
  const flow = `${ip} saddr . th sport . ${ip} daddr . th dport`
  const back = `meta l4proto . ${ip} daddr . th dport . ${ip} saddr . th sport`
  const bare = `meta l4proto . ${ip} saddr . ${ip} daddr`
  const set = (name: string, type: string, more = 'counter;'): string =>
    `add set ${table} ${name} { typeof ${type}; ${timed} ${more} }`
  const rules = (chain: string, lines: readonly string[]): string[] => [
    `flush chain ${table} ${chain}`,
    ...lines.map((line) => `add rule ${table} ${chain} ${line}`)
  ]
  return [
    `add table ${table}`,
    `add set ${table} users { typeof meta skuid; flags interval; }`,
    `flush set ${table} users`,
    ...ids.map(({ first, last }) => `add element ${table} users { ${first}-${last} }`),
    ...OF_USERS.map(({ name, protocol }) =>
      set(name, `meta skuid . ${protocol === undefined ? bare : flow}`)
    ),
    set('ends', `meta l4proto . ${flow}`, ''),
    set('came', `meta l4proto . ${flow}`),
    set('new_flows', 'meta skuid', ''),
    `add counter ${table} no_room`,
    `add chain ${table} of_users`,
    // After everything that is dropped is (node-table.ts).
    `add chain ${table} out { type filter hook output priority 50; policy accept; }`,
    `add chain ${table} in { type filter hook input priority 50; policy accept; }`,
    ...rules('of_users', [
      ...countedIn('bare_sent', 'meta l4proto != { tcp, udp }', bare),
      ...PORTED.flatMap((protocol) =>
        countedIn(`${protocol}_answered`, `ct direction reply meta l4proto ${protocol}`, flow)
      ),
      ...PORTED.flatMap((protocol) => countedIn(`${protocol}_asked`, `meta l4proto ${protocol}`, flow)),
      'counter name no_room'
    ]),
    ...rules('out', ['oifname != "lo" meta skuid @users goto of_users']),
    ...rules('in', [`iifname != "lo" meta l4proto { tcp, udp } ${back} @ends update @came { ${back} }`])
  ]
}

/**
 * Rules that count a packet of the user by this key, or that there is no room for it. What comes back is looked for only where
 * there was.
 */
function countedIn(set: string, match: string, key: string): string[] {
  const user = `meta skuid & ${IDS_MASK}`
  return [
    // Does not match where the vserver may still add one; one that is there already needs no room.
    `${match} ${user} . ${key} != @${set} update @new_flows { ${user} ${NEW_FLOWS} } counter name no_room accept`,
    ...(set === 'bare_sent' ? [] : [`${match} update @ends { meta l4proto . ${key} }`]),
    `${match} update @${set} { ${user} . ${key} } accept`
  ]
}

const PORTED = ['tcp', 'udp'] as const
/** Sets, by user. Who asked sent the first packet; what is bare has no ports. */
const OF_USERS: readonly { readonly name: string; readonly protocol?: (typeof PORTED)[number] }[] = [
  ...PORTED.map((protocol) => ({ name: `${protocol}_asked`, protocol })),
  ...PORTED.map((protocol) => ({ name: `${protocol}_answered`, protocol })),
  { name: 'bare_sent' }
]

/** Lines for nft that forget what was counted of whoever had the ids from this one on. */
export async function userFlowRemoval(firstId: number): Promise<string[]> {
  const block = blockOf(firstId)
  const sets = (await possibleTables(USER_FLOWS_TABLES)).flatMap((table) =>
    OF_USERS.map(({ name }) => ({ table, name }))
  )
  const lines = sets.map(async ({ table, name }) => {
    const keys = (await elementsOf(table, name)).filter(({ parts }) => parts[0] === block)
    return keys.map(({ parts }) => `delete element ${table} ${name} { ${parts.join(' . ')} }`)
  })
  return (await Promise.all(lines)).flat()
}

/** Packets of them that found no room, since the tables were made. */
export async function readUserNoRoom(): Promise<number> {
  const tables = await possibleTables(USER_FLOWS_TABLES)
  const counters = await Promise.all(tables.map(async (table) => readCounters(table)))
  return counters.reduce((sum, ofTable) => sum + (ofTable.get('no_room') ?? 0), 0)
}

/** A vserver that shares the node's network, or did. */
export interface NetworkUserOwner {
  readonly id: string
  readonly isHere: boolean
}

interface Known {
  readonly flow: Flow
  /** Packets of it that were told; `undefined` when its end was. */
  readonly told: number | undefined
}

/** What of the counts was told already. */
export class UserFlows {
  readonly #known = new Map<string, Known>()

  /**
   * Those that had packets or ended since they were told last. `owners` by the first of their ids. Whose owner is not known
   * is passed over. Now is UTC ms.
   */
  async take(owners: ReadonlyMap<number, NetworkUserOwner>, now: number): Promise<Flow[]> {
    if (owners.size === 0) return []
    const gone = new Set(this.#known.keys())
    const told: Flow[] = []
    for (const { key, block, flow } of await readUserFlows(now)) {
      const before = this.#known.get(key)
      const owner = owners.get(block)
      const vserver = before?.flow.vserver ?? owner?.id
      if (vserver === undefined) continue
      gone.delete(key)
      const packets = flow.sent.packets + flow.received.packets
      const isOpen = owner?.isHere === true && owner.id === vserver
      const latest = { ...flow, vserver, isOpen, first: before?.flow.first ?? flow.first }
      const isNews = packets !== before?.told && (isOpen || before === undefined || before.told !== undefined)
      if (isNews || (!isOpen && before?.told !== undefined)) told.push(latest)
      this.#known.set(key, { flow: latest, told: isOpen ? packets : undefined })
    }
    for (const key of gone) {
      const { flow, told: packets } = this.#known.get(key) ?? {}
      this.#known.delete(key)
      if (flow !== undefined && packets !== undefined) told.push({ ...flow, isOpen: false })
    }
    return told
  }
}

interface UserFlow {
  readonly key: string
  readonly block: number
  readonly flow: Omit<Flow, 'vserver'>
}

async function readUserFlows(now: number): Promise<UserFlow[]> {
  const tables = await possibleTables(USER_FLOWS_TABLES)
  return (await Promise.all(tables.map(async (table) => readTable(table, now)))).flat()
}

async function readTable(table: UserFlowsTable, now: number): Promise<UserFlow[]> {
  const came = new Map<string, FlowCount>()
  for (const { parts, count } of await elementsOf(table, 'came')) came.set(parts.join(' '), count)
  const sets = await Promise.all(
    OF_USERS.map(async (set) => ({ ...set, elements: await elementsOf(table, set.name) }))
  )
  return sets.flatMap(({ name, protocol: ported, elements }) =>
    elements.flatMap(({ parts, count, quietSeconds }) => {
      const [user, ...ends] = parts
      const [number = '', ...addresses] = ported === undefined ? ends : [NUMBERS[ported], ...ends]
      const protocol = PROTOCOLS.get(number)
      const [localAddress = '', localPort, remoteAddress = '', remotePort] =
        ported === undefined ? [addresses[0], 0, addresses[1], 0] : addresses
      if (protocol === undefined) return []
      const last = now - quietSeconds * 1000
      const key = `${name} ${parts.join(' ')}`
      const flow: Omit<Flow, 'vserver'> = {
        id: `s${key.replaceAll(' ', '-')}`,
        protocol,
        localAddress,
        localPort: Number(localPort),
        remoteAddress,
        remotePort: Number(remotePort),
        begunBy: name.endsWith('_answered') ? 'remote' : 'vserver',
        first: last,
        last,
        sent: count,
        received: came.get([number, ...addresses].join(' ')) ?? { packets: 0, bytes: 0 },
        isTracked: ported !== undefined,
        isOpen: true
      }
      return [{ key, block: Number(blockOf(Number(user))), flow }]
    })
  )
}

/** Users are asked for by number, and so come protocols. */
const PROTOCOLS: ReadonlyMap<string, PortProtocol> = new Map([
  ['1', 'icmp'],
  ['6', 'tcp'],
  ['17', 'udp'],
  ['47', 'gre'],
  ['58', 'icmp']
])
const NUMBERS: Readonly<Record<(typeof PORTED)[number], string>> = { tcp: '6', udp: '17' }

interface Counted {
  readonly parts: readonly string[]
  readonly count: FlowCount
  /** Since the last packet. */
  readonly quietSeconds: number
}

async function elementsOf(table: UserFlowsTable, set: string): Promise<Counted[]> {
  const printed = JSON.parse(
    await run('nft', ['-j', '-n', 'list', 'set', ...table.split(' '), set])
  ) as Printed
  return (printed.nftables ?? []).flatMap((each) =>
    (each.set?.elem ?? []).map(({ elem }) => ({
      parts: elem.val.concat.map(String),
      count: { packets: elem.counter.packets, bytes: elem.counter.bytes },
      quietSeconds: Math.max(0, KEPT_SECONDS - (elem.expires ?? KEPT_SECONDS))
    }))
  )
}

interface Printed {
  readonly nftables?: readonly {
    readonly set?: {
      readonly elem?: readonly {
        readonly elem: {
          readonly val: { readonly concat: readonly (string | number)[] }
          readonly expires?: number
          readonly counter: { readonly packets: number; readonly bytes: number }
        }
      }[]
    }
  }[]
}

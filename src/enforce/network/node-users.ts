/**
 * Vservers that share the node's network (administrative slices, paper §4.3), told by the host ids that their programs
 * run as. What their sockets send leaves in a class of its own; frames that a program made below IP leave on no device:
 * they watch, and inject nothing. The check is an egress hook, which packet sockets cannot go past.
 */
import { run } from '../../base/host-program.ts'
import { planLink, SHAPING_MAJOR } from './address-plan.ts'
import { VSERVER_TABLE, type DestinationBounds } from './destinations.ts'
import {
  blockOf,
  countUserDrop,
  keptDropCounts,
  userDropCountsRemoval,
  userDropCountsSet
} from './drop-counts.ts'
import type { LinkRecord } from './link-records.ts'
import { USER_DROP_REASONS, type DropReason } from './drop-chains.ts'
import { reachSets6, type Reach6 } from './node-table6.ts'
import { NODE_TABLE } from './owned-ports.ts'
import { NODE_TABLE_6 } from './owned-ports6.ts'
import { applyRules, hasTablesOfSix, removalOfTables } from './ruleset.ts'
import { devicesOf, indexesOf, type UplinkPlace } from './uplink-rules.ts'
import { userFlowLines, userFlowRemoval, type NetworkUserOwner } from './user-flows.ts'
import { boundUserRemoval, boundUsersLines, type BoundUser } from './vserver-table.ts'

export const USERS_TABLE = 'netdev slicenet_users'
/** Of IPv6, also on a node whose vservers with a link of their own have none. */
export const USERS_TABLE_6 = 'ip6 slicenet_users'
/** Counts the frames that were not let out. */
export const INJECTED_COUNTER = 'injected'

const CLASSES = ['class', 'icmp_class', 'options_class'] as const
/** Rules for what a user sends on an uplink; the last class that is set counts. */
const CLASSIFY = [
  // What is new to it has its class by now.
  'meta skuid . meta priority != @new_classes meta priority set meta skuid map @class',
  'ip protocol icmp meta priority set meta skuid map @icmp_class',
  'meta l4proto ipv6-icmp meta priority set meta skuid map @icmp_class',
  'ip hdrlength > 5 meta priority set meta skuid map @options_class',
  'accept'
]

const DECLARATIONS = [
  `add table ${USERS_TABLE}`,
  `add set ${USERS_TABLE} users { typeof meta skuid; flags interval; }`,
  ...CLASSES.map(
    (map) => `add map ${USERS_TABLE} ${map} { typeof meta skuid : meta priority; flags interval; }`
  ),
  `add set ${USERS_TABLE} new_classes { typeof meta skuid . meta priority; flags interval; }`,
  `add chain ${USERS_TABLE} classify`,
  `flush chain ${USERS_TABLE} classify`,
  ...CLASSIFY.map((rule) => `add rule ${USERS_TABLE} classify ${rule}`),
  `add counter ${USERS_TABLE} ${INJECTED_COUNTER}`,
  `add set ${USERS_TABLE} ${userDropCountsSet(1)}`
]

/** Ids are on the host, both included. */
type NodeUser = BoundUser

export interface UsersInit {
  readonly uplinks: readonly Pick<UplinkPlace, 'device' | 'ifindex'>[]
  /** Every device of the node, the uplinks among them. */
  readonly devices: readonly string[]
  /** Whether vservers own ports of IPv6 as well. */
  readonly hasSix: boolean
  readonly reach6: Reach6
  readonly bounds: DestinationBounds
}

type LinesInit = UsersInit & {
  /** Whether the kernel has tables that hold IPv6 to `reach6`; else none of it leaves the node. */
  readonly isSixKept: boolean
  /** Lines for the counts of the table of IPv6, which is made anew; what is dropped meanwhile is not counted. */
  readonly counts6: readonly string[]
}

/** Lines for nft that let these users send and nobody else be taken for one; without a gap for those before. */
function usersLines(users: readonly NodeUser[], init: LinesInit): string[] {
  const { uplinks, devices, isSixKept, counts6 } = init
  const uplinkDevices = uplinks.map(({ device }) => device)
  return [
    ...(isSixKept ? [...ipv6Lines(users, init), ...counts6] : []),
    ...DECLARATIONS,
    `flush set ${USERS_TABLE} users`,
    ...CLASSES.map((map) => `flush map ${USERS_TABLE} ${map}`),
    `flush set ${USERS_TABLE} new_classes`,
    ...users.flatMap(({ plan, ids }) => {
      const classes = { class: plan.dataClass, icmp_class: plan.icmpClass, options_class: plan.optionsClass }
      return [
        `add element ${USERS_TABLE} users { ${ids.first}-${ids.last} }`,
        `add element ${USERS_TABLE} new_classes { ${ids.first}-${ids.last} . ${SHAPING_MAJOR}:${plan.newClass} }`,
        ...CLASSES.map(
          (map) =>
            `add element ${USERS_TABLE} ${map} { ${ids.first}-${ids.last} : ${SHAPING_MAJOR}:${classes[map]} }`
        )
      ]
    }),
    ...devices.flatMap((device) => deviceLines(device, uplinkDevices, isSixKept))
  ]
}

/** Those of the node that have rules for users, of each family that vservers have. */
function familyTables(hasSix: boolean): string[] {
  return [NODE_TABLE, ...(hasSix ? [NODE_TABLE_6] : [])]
}

/** All of the node's that have rules for users. */
function nodeTables(hasSix: boolean): string[] {
  return [...familyTables(hasSix), VSERVER_TABLE]
}

/** Who is held to the rules of the node's tables for them. */
function namedLines(
  users: readonly NodeUser[],
  { uplinks, hasSix }: Pick<UsersInit, 'uplinks' | 'hasSix'>
): string[] {
  const there = users.length > 0
  return [
    ...familyTables(hasSix).flatMap((table) =>
      sentLines(table, 0, there ? ['meta skuid @users goto from_users'] : [])
    ),
    ...sentLines(
      VSERVER_TABLE,
      1,
      there
        ? [
            'ct state established accept',
            `meta skuid @users oifname ${devicesOf(uplinks)} ct state new,invalid,untracked goto user_destinations`
          ]
        : []
    ),
    ...nodeTables(hasSix).flatMap((table) => [
      `flush set ${table} users`,
      ...users.map(({ ids }) => `add element ${table} users { ${ids.first}-${ids.last} }`)
    ]),
    ...boundUsersLines(users)
  ]
}

/**
 * Lines for nft that have a table look by these rules at what the node sends; without rules it does not look. Every packet of the
 * node's own would pass a chain that stands for nobody.
 */
function sentLines(table: string, priority: number, rules: readonly string[]): string[] {
  const chain = `${table} from_node`
  return [
    `add chain ${chain} { type filter hook output priority ${priority}; policy accept; }`,
    `flush chain ${chain}`,
    ...(rules.length === 0 ? [`delete chain ${chain}`] : rules.map((rule) => `add rule ${chain} ${rule}`))
  ]
}

/** Why packets of IPv6 are dropped by a table of this file. */
const REASONS_6: readonly DropReason[] = ['forged', 'device', 'denied']

/** From no address but the node's own, and on uplinks to what vservers reach (node-table6.ts). */
function ipv6Lines(
  users: readonly NodeUser[],
  { uplinks, reach6 }: Pick<UsersInit, 'uplinks' | 'reach6'>
): string[] {
  const [table, chain] = [USERS_TABLE_6, `${USERS_TABLE_6} from_users`]
  const drop = (match: string, reason: DropReason): string[] => [
    `add rule ${chain} ${match} ${countUserDrop(reason)}`,
    `add rule ${chain} ${match} counter drop`
  ]
  return [
    `add table ${table}`,
    `delete table ${table}`,
    `table ${table} {`,
    'set users { typeof meta skuid; flags interval; }',
    `set ${userDropCountsSet(REASONS_6.length)}`,
    ...reachSets6(reach6),
    '}',
    ...users.map(({ ids }) => `add element ${table} users { ${ids.first}-${ids.last} }`),
    `add chain ${chain}`,
    ...drop('fib saddr type != local', 'forged'),
    ...drop(`oifname ${devicesOf(uplinks)} oif != ${indexesOf(uplinks)}`, 'device'),
    `add rule ${chain} ct direction reply accept`,
    `add rule ${chain} oifname "lo" accept`,
    ...drop(`oif != ${indexesOf(uplinks)}`, 'device'),
    `add rule ${chain} ip6 daddr @allowed accept`,
    ...drop('ip6 daddr @denied', 'denied'),
    `add chain ${table} from_node { type filter hook output priority 0; policy accept; }`,
    `add rule ${table} from_node meta skuid @users goto from_users`
  ]
}

/** Lines for nft that hold users to the rules on one more device, which must exist. */
export function userDeviceLines(device: string, uplinks: readonly string[]): string[] {
  // A link has no IPv6 where the kernel has no tables of it; refreshing looks after the rest.
  return [...DECLARATIONS, ...deviceLines(device, uplinks, true)]
}

function deviceLines(device: string, uplinks: readonly string[], isSixKept: boolean): string[] {
  const chain = `${USERS_TABLE} ${chainOf(device)}`
  const verdict = uplinks.includes(device) ? 'goto classify' : 'accept'
  return [
    `add chain ${chain} { type filter hook egress device "${device}" priority 0; policy accept; }`,
    `flush chain ${chain}`,
    ...(isSixKept || device === 'lo'
      ? []
      : [`add rule ${chain} meta protocol ip6 meta skuid @users counter drop`]),
    // Only what the IP stack made has a route; any number may be set on a packet socket, but not that.
    `add rule ${chain} meta skuid @users meta rtclassid 0 ${verdict}`,
    `add rule ${chain} ${countUserDrop(INJECTED_COUNTER)}`,
    `add rule ${chain} meta skuid @users counter name ${INJECTED_COUNTER} drop`
  ]
}

interface LocalDevice {
  readonly ifname: string
  /** Another one for a device that is made again. */
  readonly ifindex: number
}

/** The node's devices. */
async function localDevices(): Promise<readonly LocalDevice[]> {
  return JSON.parse(await run('ip', ['-j', 'link', 'show'])) as readonly LocalDevice[]
}

/** Devices may have names that chains may not. */
function chainOf(device: string): string {
  return `on_${Buffer.from(device).toString('hex')}`
}

/** Of the records, those without a link of their own. */
export function usersOf(records: Iterable<LinkRecord>): NodeUser[] {
  return [...records].flatMap(({ index, ids, shaping }) =>
    ids === undefined
      ? []
      : [{ plan: planLink(index), ids, destinationsPerMinute: shaping?.destinationsPerMinute }]
  )
}

/** Lines for those that share the node's network, on every device that there is now. */
export async function currentUsersLines(
  records: Iterable<LinkRecord>,
  init: Omit<UsersInit, 'devices'>
): Promise<string[]> {
  const users = usersOf(records)
  const named = namedLines(users, init)
  if (users.length === 0) return [...named, ...(await removalOfTables([USERS_TABLE, USERS_TABLE_6]))]
  const devices = (await localDevices()).map(({ ifname }) => ifname)
  const counting = await userFlowLines(users.map(({ ids }) => ids))
  const isSixKept = await hasTablesOfSix()
  const blocks = new Set(users.map(({ ids }) => blockOf(ids.first)))
  const counts6 = isSixKept ? await keptDropCounts(USERS_TABLE_6, blocks) : []
  return [...named, ...counting, ...usersLines(users, { ...init, devices, isSixKept, counts6 })]
}

const ATTEMPTS_MAX = 3

/** Changes who shares the node's network, one change at a time, so that the last word is the last. */
export class NodeUsers {
  readonly #records: () => Iterable<LinkRecord>
  readonly #init: () => Omit<UsersInit, 'devices'>
  readonly #leaving = new Set<string>()
  /** By the first of their ids, those that are gone as well: what they sent may be told of later. */
  readonly #owners = new Map<number, string>()
  #last: Promise<void> = Promise.resolve()
  /** Those that were there at the last refreshing. */
  #devices = ''

  /** `init`: what the node is now. */
  constructor(records: () => Iterable<LinkRecord>, init: () => Omit<UsersInit, 'devices'>) {
    this.#records = records
    this.#init = init
  }

  /** Who has, or had last, the ids from each of these on. */
  owners(): ReadonlyMap<number, NetworkUserOwner> {
    const here = new Set<number>()
    for (const { id, ids } of this.#records()) {
      if (ids === undefined) continue
      here.add(ids.first)
      this.#owners.set(ids.first, id)
    }
    return new Map([...this.#owners].map(([first, id]) => [first, { id, isHere: here.has(first) }]))
  }

  /** Puts the records in place as they are when it is this change's turn. */
  async apply(): Promise<void> {
    const apply = async (): Promise<void> => {
      for (let attempt = 1; ; attempt++) {
        const staying = [...this.#records()].filter(({ id }) => !this.#leaving.has(id))
        try {
          await applyRules(await currentUsersLines(staying, this.#init()))
          return
        } catch (error) {
          // A device of somebody else may have gone meanwhile.
          if (attempt === ATTEMPTS_MAX) throw error
        }
      }
    }
    this.#last = this.#last.then(apply, apply)
    await this.#last
  }

  /** Puts them in place on devices that came since; nothing where there are none. */
  async refresh(): Promise<void> {
    if (usersOf(this.#records()).length === 0) return
    const devices = (await localDevices()).map(({ ifname, ifindex }) => `${ifindex}:${ifname}`).join(' ')
    if (devices === this.#devices) return
    await this.apply()
    this.#devices = devices
  }

  /** Puts in place one that is new, of whose range of ids nothing is counted yet. */
  async join(firstId: number): Promise<void> {
    await this.apply()
    // What its ids' owner before did is not its.
    await applyRules([
      ...userDropCountsRemoval(USERS_TABLE, firstId, [INJECTED_COUNTER]),
      ...(await userFlowRemoval(firstId))
    ])
  }

  /** Takes out one whose record is still there. */
  async leave({ id, ids }: LinkRecord): Promise<void> {
    if (ids !== undefined) this.#owners.set(ids.first, id)
    this.#leaving.add(id)
    try {
      await this.apply()
      if (ids !== undefined) {
        const { hasSix, bounds } = this.#init()
        await applyRules([
          ...nodeTables(hasSix).flatMap((table) =>
            userDropCountsRemoval(table, ids.first, USER_DROP_REASONS)
          ),
          ...boundUserRemoval(ids.first, bounds)
        ])
      }
    } finally {
      this.#leaving.delete(id)
    }
  }
}

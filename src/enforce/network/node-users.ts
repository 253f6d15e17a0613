/**
 * Vservers that share the node's network (administrative slices, paper §4.3), told by the host ids that their programs
 * run as. What their sockets send leaves in a class of its own; frames that a program made below IP leave on no device:
 * they watch, and inject nothing. The check is an egress hook, which packet sockets cannot go past.
 */
import { run } from '../../base/host-program.ts'
import { SHAPING_MAJOR, type LinkPlan } from './address-plan.ts'
import { NODE_TABLE } from './owned-ports.ts'

export const USERS_TABLE = 'netdev slicenet_users'
/** Counts the frames that were not let out. */
export const INJECTED_COUNTER = 'injected'

const DECLARATIONS = [
  `add table ${USERS_TABLE}`,
  `add set ${USERS_TABLE} users { typeof meta skuid; flags interval; }`,
  `add map ${USERS_TABLE} class { typeof meta skuid : meta priority; flags interval; }`,
  `add counter ${USERS_TABLE} ${INJECTED_COUNTER}`
]

export interface NodeUser {
  readonly plan: LinkPlan
  /** On the host, both included. */
  readonly ids: { readonly first: number; readonly last: number }
}

export interface UsersInit {
  readonly uplink: string
  /** Every device of the node, the uplink among them. */
  readonly devices: readonly string[]
}

/** Lines for nft that let these users send and nobody else be taken for one; without a gap for those before. */
export function usersLines(users: readonly NodeUser[], { uplink, devices }: UsersInit): string[] {
  const known = users.map(({ ids }) => `add element ${NODE_TABLE} users { ${ids.first}-${ids.last} }`)
  const node = [`flush set ${NODE_TABLE} users`, ...known]
  if (users.length === 0) return [...node, `add table ${USERS_TABLE}`, `delete table ${USERS_TABLE}`]
  return [
    ...node,
    ...DECLARATIONS,
    `flush set ${USERS_TABLE} users`,
    `flush map ${USERS_TABLE} class`,
    ...users.flatMap(({ plan, ids }) => [
      `add element ${USERS_TABLE} users { ${ids.first}-${ids.last} }`,
      `add element ${USERS_TABLE} class { ${ids.first}-${ids.last} : ${SHAPING_MAJOR}:${plan.dataClass} }`
    ]),
    ...devices.flatMap((device) => deviceLines(device, uplink))
  ]
}

/** Lines for nft that hold users to the rules on one more device, which must exist. */
export function userDeviceLines(device: string, uplink: string): string[] {
  return [...DECLARATIONS, ...deviceLines(device, uplink)]
}

function deviceLines(device: string, uplink: string): string[] {
  const chain = `${USERS_TABLE} ${chainOf(device)}`
  const mark = device === uplink ? 'meta priority set meta skuid map @class ' : ''
  return [
    `add chain ${chain} { type filter hook egress device "${device}" priority 0; policy accept; }`,
    `flush chain ${chain}`,
    // Only what the IP stack made has a route; any number may be set on a packet socket, but not that.
    `add rule ${chain} meta skuid @users meta rtclassid 0 ${mark}accept`,
    `add rule ${chain} meta skuid @users counter name ${INJECTED_COUNTER} drop`
  ]
}

/** Names of the node's devices. */
export async function localDevices(): Promise<string[]> {
  const links = JSON.parse(await run('ip', ['-j', 'link', 'show'])) as readonly { readonly ifname: string }[]
  return links.map(({ ifname }) => ifname)
}

/** Devices may have names that chains may not. */
function chainOf(device: string): string {
  return `on_${Buffer.from(device).toString('hex')}`
}

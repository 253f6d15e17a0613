/**
 * Rights: what a virtual machine may do beyond the ordinary, and which of them go together (paper §4.3, administrative
 * slices). Pure.
 */
import type { PortRange } from './ports.ts'

/**
 * The Linux capability that each such right lends to root of an administrative slice. None is here that is the host's
 * root by another name, such as CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYS_MODULE or CAP_DAC_OVERRIDE.
 */
export const CAPABILITY_OF = {
  'cap-kill': 'CAP_KILL',
  'cap-net-admin': 'CAP_NET_ADMIN',
  'cap-net-bind-service': 'CAP_NET_BIND_SERVICE',
  'cap-net-raw': 'CAP_NET_RAW',
  'cap-sys-nice': 'CAP_SYS_NICE',
  'cap-sys-time': 'CAP_SYS_TIME'
} as const
export type CapabilityRight = keyof typeof CAPABILITY_OF

export const CAPABILITY_RIGHTS = Object.keys(CAPABILITY_OF) as readonly CapabilityRight[]

/**
 * `raw-socket`: sockets below TCP and UDP on a network of its own. `administrative`: the process list and the network of
 * the node instead of its own.
 */
export type Right = 'raw-socket' | 'administrative' | CapabilityRight
export const RIGHTS: readonly Right[] = ['raw-socket', 'administrative', ...CAPABILITY_RIGHTS]

export function isCapabilityRight(right: string): right is CapabilityRight {
  return Object.hasOwn(CAPABILITY_OF, right)
}

/** Whether these are the rights of an administrative slice. */
export function isAdministrative(rights: readonly string[]): boolean {
  return rights.includes('administrative')
}

/** What lends a lease more than its own surroundings: the rights of administrative slices. */
export function administrativeRights<R extends string>(rights: readonly R[]): R[] {
  return rights.filter((right) => right === 'administrative' || isCapabilityRight(right))
}

/**
 * Why no virtual machine can have these rights together, for people; `undefined` when one can. `ports` are those that it
 * is to own. Tickets that others are cut from may carry rights for different ones.
 */
export function rightsFault(
  rights: readonly string[],
  ports: readonly Pick<PortRange, 'protocol'>[]
): string | undefined {
  if (!isAdministrative(rights)) {
    const capability = rights.find(isCapabilityRight)
    return capability === undefined ? undefined : `the right ${capability} needs the right administrative`
  }
  if (rights.includes('raw-socket')) {
    return 'an administrative slice has no network of its own for raw-socket: lease cap-net-raw instead'
  }
  if (ports.length > 0) return 'an administrative slice has no network of its own, so it can own no ports'
  return undefined
}

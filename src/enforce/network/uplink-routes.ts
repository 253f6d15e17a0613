/**
 * Routes for connections that have an uplink's address already, so that they leave by that one: what came in by it is
 * answered by it. Each uplink has a table with copies of the host's own routes through it, for packets that bear its mark
 * (uplink-rules.ts), which vservers' alone do. No route or rule of anybody else's is changed.
 */
import { readFile } from 'node:fs/promises'
import { run } from '../../base/host-program.ts'
import { LIMITS } from '../../base/limits.ts'
import { markOf, type MarkedUplink } from './uplink-rules.ts'
import type { NumberedUplink, Uplink } from './uplink.ts'

/** Before that of the main table. */
const RULE_PRIORITY = 0x51ce
/** Unusual numbers, so that no other program's table is taken for one of these. */
const FIRST_TABLE = 0x51ce00

/** As ip(8) prints it. */
export interface HostRoute {
  readonly dst?: string
  readonly type?: string
  readonly gateway?: string
  readonly dev?: string
  readonly scope?: string
  readonly prefsrc?: string
  readonly metric?: number
  /** Absent of the main table. */
  readonly table?: string
  readonly flags?: readonly string[]
  readonly nexthops?: readonly { readonly gateway?: string; readonly dev?: string }[]
}

type Family = 'ipv4' | 'ipv6'
const OPTION = { ipv4: '-4', ipv6: '-6' } as const

interface HostRule {
  readonly fwmark?: string
  readonly table?: string
}

/** Of one family of addresses. */
export class UplinkRoutes {
  readonly #family: Family
  /** Devices that had a way to everywhere at the last look. */
  #open: ReadonlySet<string> = new Set()

  constructor(family: Family) {
    this.#family = family
  }

  /**
   * Puts them in place as the host's routes are now. Gives the uplinks that no longer have a way to everywhere: what is
   * connected by their address has none either.
   */
  async look(uplinks: readonly NumberedUplink[]): Promise<readonly MarkedUplink[]> {
    const marked = this.#marked(uplinks)
    if (uplinks.length < 2 || marked.length === 0) return []
    const [routes, rules] = await Promise.all([
      this.#show<HostRoute>(['route', 'show', 'table', 'all']),
      this.#show<HostRule>(['rule', 'show'])
    ])
    const lines = marked.flatMap(({ device, number }) => {
      const table = tableOf(number)
      const wanted = routesThrough(device, routes)
      const present = routes.filter((route) => route.table === table).map(textOf)
      return [
        ...wanted
          .filter((text) => !present.includes(text))
          .map((text) => `route replace ${text} table ${table}`),
        ...present.filter((text) => !wanted.includes(text)).map((text) => `route del ${text} table ${table}`),
        ...(rules.some((rule) => rule.table === table) ? [] : [`rule add ${ruleOf(number)}`])
      ]
    })
    await this.#batch(lines)
    const open = new Set(
      marked.map(({ device }) => device).filter((device) => defaultThrough(device, routes) !== undefined)
    )
    const lost = marked.filter(({ device }) => this.#open.has(device) && !open.has(device))
    this.#open = open
    return lost
  }

  /** Takes away those of all uplinks but these, by their numbers. */
  async remove(kept: ReadonlySet<number> = new Set()): Promise<void> {
    // A kernel without them has none to take away.
    const rules = await this.#show<HostRule>(['rule', 'show']).catch(() => [])
    const places = Array.from({ length: LIMITS.uplinksPerNodeMax }, (_, at) => at)
    const gone = places.filter((at) => !kept.has(at))
    const present = gone.filter((at) => rules.some(({ table }) => table === tableOf(at)))
    await this.#batch(present.flatMap((at) => [`rule del ${ruleOf(at)}`, `route flush table ${tableOf(at)}`]))
  }

  /** Those that have an address of this family, with it. */
  #marked(uplinks: readonly NumberedUplink[]): readonly MarkedUplink[] {
    return uplinks.flatMap(({ device, ifindex, address, address6, number }) => {
      const own = this.#family === 'ipv4' ? address : address6
      return own === undefined ? [] : [{ device, ifindex, number, address: own }]
    })
  }

  async #show<T>(args: readonly string[]): Promise<readonly T[]> {
    return JSON.parse((await run('ip', [OPTION[this.#family], '-j', ...args])) || '[]') as readonly T[]
  }

  async #batch(lines: readonly string[]): Promise<void> {
    if (lines.length === 0) return
    await run('ip', [OPTION[this.#family], '-batch', '-'], { input: `${lines.join('\n')}\n` })
  }
}

/** Routes for the table of an uplink, as ip(8) takes them: to who is on its link, and to everywhere. */
export function routesThrough(device: string, routes: readonly HostRoute[]): readonly string[] {
  const onLink = routes.filter(
    (route) =>
      route.dev === device &&
      route.dst !== 'default' &&
      route.table === undefined &&
      isOnLink(route) &&
      isUsable(route)
  )
  const everywhere = defaultThrough(device, routes)
  const all = [...onLink, ...(everywhere === undefined ? [] : [everywhere])].map(textOf)
  return [...new Set(all)]
}

/** The host's default route through a device: the main table's, else any other's. */
function defaultThrough(device: string, routes: readonly HostRoute[]): HostRoute | undefined {
  const through = routes
    .filter((route) => route.dst === 'default' && !isOwn(route) && isUsable(route))
    .flatMap((route) => {
      const hop = route.nexthops?.find((each) => each.dev === device)
      return hop === undefined ? [route] : [{ ...route, ...hop }]
    })
    .filter((route) => route.dev === device)
  const rank = ({ table, metric = 0 }: HostRoute): number => metric + (table === undefined ? 0 : 2 ** 32)
  return through.sort((a, b) => rank(a) - rank(b))[0]
}

/** Uplinks at which the kernel drops what does not come from where it would send to. */
export async function strictlyFiltered(uplinks: readonly Uplink[]): Promise<readonly string[]> {
  const modes = async (device: string): Promise<number> =>
    Number(await readFile(`/proc/sys/net/ipv4/conf/${device}/rp_filter`, 'utf8').catch(() => '0'))
  const ofAll = await modes('all')
  const each = await Promise.all(
    uplinks.map(async ({ device }) => ({ device, mode: Math.max(ofAll, await modes(device)) }))
  )
  return each.filter(({ mode }) => mode === 1).map(({ device }) => device)
}

/** Routes of IPv6 have no scope; those of every device to its neighbours lead nowhere. */
function isOnLink({ dst = '', gateway, scope }: HostRoute): boolean {
  return scope === 'link' || (dst.includes(':') && !dst.startsWith('fe80:') && gateway === undefined)
}

function isUsable({ type, flags }: HostRoute): boolean {
  return (type === undefined || type === 'unicast') && !(flags ?? []).includes('dead')
}

function isOwn({ table }: HostRoute): boolean {
  const number = Number(table)
  return number >= FIRST_TABLE && number < FIRST_TABLE + LIMITS.uplinksPerNodeMax
}

function textOf({ dst = '', gateway, dev = '', scope, prefsrc, flags }: HostRoute): string {
  return [
    dst,
    ...(gateway === undefined ? [] : ['via', gateway]),
    'dev',
    dev,
    ...(scope === undefined ? [] : ['scope', scope]),
    ...(prefsrc === undefined ? [] : ['src', prefsrc]),
    ...((flags ?? []).includes('onlink') ? ['onlink'] : [])
  ].join(' ')
}

function tableOf(at: number): string {
  return `${FIRST_TABLE + at}`
}

function ruleOf(at: number): string {
  return `fwmark ${markOf(at)} lookup ${tableOf(at)} priority ${RULE_PRIORITY}`
}

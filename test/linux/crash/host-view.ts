/** What of vservers is on a node's host, by kind of thing, found without asking the node's daemon. */
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { runAnyway } from '../../../src/base/host-program.ts'
import { findHierarchies } from '../../../src/enforce/cgroup.ts'
import type { VserverRecord } from '../../../src/enforce/vserver-records.ts'
import { indexOfClass, indexOfDevice, planLink } from '../../../src/enforce/network/address-plan.ts'

export interface HostOfNode {
  /** Names the node on this machine. */
  readonly shortName: string
  /** The state directory of its daemon. */
  readonly state: string
  readonly runDirectory: string
  /** Path of its network namespace. */
  readonly namespace: string
}

/** Containers made ahead are called so until somebody has them, and after. */
const SPARE = /^spare-/

/** Vserver ids by kind of thing, sorted; an id is there as often as the thing is. */
export type HostView = Readonly<Record<string, readonly string[]>>

export interface SeenHost {
  /** Containers that nobody has yet, whatever of them is there; they are not in the view. */
  readonly spares: readonly string[]
  readonly view: HostView
  /** The process of each vserver and the time at which it was started, which no other process has. */
  readonly inits: ReadonlyMap<string, string>
}

export async function seeHost(host: HostOfNode): Promise<SeenHost> {
  const mountinfo = await readFile('/proc/self/mountinfo', 'utf8')
  const enforce = join(host.state, 'enforce')
  const [groups, links, disks, records, programs, bundles, runtime] = await Promise.all([
    seeGroups(host, mountinfo),
    seeNetwork(host),
    names(join(enforce, 'volume')),
    names(join(enforce, 'vservers')),
    names(join(enforce, 'programs')),
    names(join(host.runDirectory, 'vservers')),
    names(join(host.runDirectory, 'runtime'))
  ])
  const ofMount = new RegExp(` ${host.runDirectory}/vservers/([^/ ]+)/`)
  const mounts = mountinfo.split('\n').flatMap((line) => ofMount.exec(line)?.[1] ?? [])
  const view = {
    process: groups.processes,
    cgroup: groups.groups,
    mount: mounts,
    disk: disks,
    record: records.map((name) => name.replace(/\.json(\.new)?$/, '')),
    program: programs,
    bundle: bundles,
    runtime,
    ...links
  }
  const owners = await ownersOf(join(enforce, 'vservers'))
  const called = Object.entries(view).map(
    ([kind, found]) => [kind, found.map((name) => owners.get(name) ?? name)] as const
  )
  const spares = new Set(called.flatMap(([, found]) => found.filter((name) => SPARE.test(name))))
  return {
    spares: [...spares],
    view: Object.fromEntries(
      called.map(([kind, found]) => [kind, found.filter((name) => !spares.has(name)).sort()])
    ),
    inits: new Map([...groups.inits].map(([container, init]) => [owners.get(container) ?? container, init]))
  }
}

/** How the host differs from holding each of `ids` exactly once and nothing else; `orphan`s and things `missing`. */
export function differences(view: HostView, ids: readonly string[]): string[] {
  return Object.entries(view).flatMap(([kind, found]) => {
    const count = (id: string): number => found.filter((each) => each === id).length
    const expected = kind === 'program' ? 0 : 1
    const missing = ids.filter((id) => count(id) < expected).map((id) => `missing ${kind} ${id}`)
    const doubled = ids.filter((id) => count(id) > 1).map((id) => `${count(id)} of ${kind} ${id}`)
    const orphans = found.filter((id) => !ids.includes(id)).map((id) => `orphan ${kind} ${id}`)
    return [...missing, ...doubled, ...orphans]
  })
}

/** Ids of vservers by the names of their containers. */
async function ownersOf(directory: string): Promise<Map<string, string>> {
  const owners = new Map<string, string>()
  for (const name of await names(directory)) {
    const text = await readFile(join(directory, name), 'utf8').catch(() => '')
    if (!name.endsWith('.json') || text === '') continue
    const { spec, container } = JSON.parse(text) as Pick<VserverRecord, 'spec' | 'container'>
    owners.set(container, spec.id)
  }
  return owners
}

async function seeGroups(
  { shortName }: HostOfNode,
  mountinfo: string
): Promise<{ groups: string[]; processes: string[]; inits: Map<string, string> }> {
  const groups = new Set<string>()
  const pids = new Map<string, string>()
  for (const { directory } of findHierarchies(mountinfo)) {
    for (const id of await names(join(directory, `slicenet-${shortName}`), 'directories')) {
      groups.add(id)
      const text = await readFile(join(directory, `slicenet-${shortName}`, id, 'cgroup.procs'), 'utf8').catch(
        () => ''
      )
      for (const pid of text.split('\n').filter((line) => line !== '')) pids.set(pid, id)
    }
  }
  const inits = new Map<string, string>()
  for (const [pid, id] of pids) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
    inits.set(id, `${pid} since ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '?'}`)
  }
  return { groups: [...groups], processes: [...pids.values()], inits }
}

/** Devices, addresses, owned ports, source checks and traffic classes, named by the vserver of their link's number. */
async function seeNetwork({ state, namespace }: HostOfNode): Promise<Record<string, string[]>> {
  const directory = join(state, 'network', 'links')
  const ids = new Map<number, string>()
  for (const name of await names(directory)) {
    const text = await readFile(join(directory, name), 'utf8').catch(() => '')
    if (text !== '') ids.set(Number.parseInt(name, 10), (JSON.parse(text) as { id: string }).id)
  }
  const script = 'cat /proc/net/dev; echo ---; nft list ruleset; echo ---; tc class show dev up0'
  const { stdout } = await runAnyway('nsenter', [`--net=${namespace}`, 'sh', '-c', script])
  const [devices = '', rules = '', classes = ''] = stdout.split('---\n')
  const named = (index: number | undefined): string[] =>
    index === undefined ? [] : [ids.get(index) ?? `link ${index}`]
  const byAddress = new Map([...ids.keys()].map((index) => [planLink(index).address, index]))
  const elements = (kind: string): string[] =>
    [...(setText(rules, kind)?.matchAll(/100\.\d+\.\d+\.2\b/g) ?? [])].flatMap(
      ([address]) => named(byAddress.get(address)) || address
    )
  return {
    link: devices.split('\n').flatMap((line) => named(indexOfDevice((line.split(':')[0] ?? '').trim()))),
    'link record': [...ids.values()],
    address: elements('set inside'),
    port: elements('map owner'),
    'source check': elements('set addresses'),
    'traffic class': [
      ...new Set(
        [...classes.matchAll(/^class htb 51ce:([0-9a-f]+) /gm)].map(([, minor = '']) => indexOfClass(minor))
      )
    ].flatMap(named)
  }
}

function setText(rules: string, name: string): string | undefined {
  return new RegExp(`\\t${name} \\{[^}]*\\{([^}]*)\\}`).exec(rules)?.[1]
}

async function names(directory: string, which: 'all' | 'directories' = 'all'): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => [])
  return entries.filter((entry) => which === 'all' || entry.isDirectory()).map(({ name }) => name)
}

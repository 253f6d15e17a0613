/**
 * The node's network in a process of its own, as the daemon runs it: in the namespace that it is started in. One JSON
 * request a line on standard input, one answer a line on standard output.
 */
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { systemClock } from '../../../src/base/clock.ts'
import { silentLogger } from '../../../src/base/log.ts'
import type { NetworkUser, VserverLink } from '../../../src/enforce/network.ts'
import { FlowWatch } from '../../../src/enforce/network/flow-watch.ts'
import { LeaseEnds } from '../../../src/enforce/network/lease-ends.ts'
import { createNodeNetwork } from '../../../src/enforce/network/node-network.ts'
import { addressOn } from '../../../src/enforce/network/uplink.ts'

interface Request {
  readonly op:
    | 'start'
    | 'stop'
    | 'attach'
    | 'attachAll'
    | 'attachIds'
    | 'rename'
    | 'detach'
    | 'list'
    | 'addresses'
    | 'troubles'
    | 'egressBytes'
    | 'isEgressNarrowed'
    | 'counters'
    | 'dropped'
    | 'remove'
    | 'watchFlows'
    | 'takeFlows'
    | 'flowLosses'
    | 'holdFlows'
    | 'releaseFlows'
    | 'setEnds'
  readonly id?: string
  readonly to?: string
  readonly link?: VserverLink
  readonly links?: readonly VserverLink[]
  readonly user?: NetworkUser
  readonly all?: boolean
  readonly ends?: readonly (readonly [string, number])[]
}

const network = createNodeNetwork(
  { clock: systemClock, logger: silentLogger },
  JSON.parse(process.argv[2] ?? '{}')
)

let flows: FlowWatch | undefined
const ends = new LeaseEnds({ hasSix: () => network.uplinks.some(({ address6 }) => address6 !== undefined) })
let held: readonly number[] = []

/** Whether somebody in this namespace has subscribed to events of connections. */
async function isHeard(): Promise<boolean> {
  const sockets = await readFile('/proc/self/net/netlink', 'utf8')
  return sockets.split('\n').some((line) => {
    const [, family, , groups = '0'] = line.trim().split(/\s+/)
    return family === '12' && Number.parseInt(groups, 16) !== 0
  })
}

/** Children of this process that read the events of connections; others come and go. */
async function readers(): Promise<number[]> {
  const children = await readFile(`/proc/self/task/${process.pid}/children`, 'utf8')
  const pids = children.trim().split(' ').map(Number)
  const names = await Promise.all(
    pids.map(async (pid) => readFile(`/proc/${pid}/comm`, 'utf8').catch(() => ''))
  )
  return pids.filter((_, at) => names[at]?.trim() === 'conntrack')
}

const answers: Record<Request['op'], (request: Request) => Promise<unknown>> = {
  start: async () => network.start(),
  stop: async () => network.stop(),
  attach: async ({ link }) => (link === undefined ? undefined : network.attach(link)),
  attachAll: async ({ links = [] }) => Promise.all(links.map((link) => network.attach(link))),
  rename: async ({ id, to }) => network.rename(id ?? '', to ?? ''),
  attachIds: async ({ user }) => (user === undefined ? undefined : network.attachIds(user)),
  detach: async ({ id = '' }) => network.detach(id),
  list: async () => network.list(),
  addresses: async () => Promise.resolve(network.uplinks.map(({ address }) => address)),
  troubles: async () => Promise.resolve(network.troubles),
  egressBytes: async ({ id = '' }) => network.egressBytes(id),
  isEgressNarrowed: async ({ id = '' }) => network.isEgressNarrowed(id),
  counters: async () => {
    const { dropped, refused, ...counters } = await network.counters()
    return { ...counters, dropped: Object.fromEntries(dropped), refused: Object.fromEntries(refused) }
  },
  dropped: async ({ id = '' }) => network.dropped(id),
  remove: async () => network.remove(),
  watchFlows: async () => {
    const ownerOf = (inside: string): string | undefined => network.ownerOf(inside)
    const nodeAddress = (like: string, device: string): string => addressOn(network.uplinks, like, device)
    const components = {
      clock: systemClock,
      logger: silentLogger,
      ownerOf,
      nodeAddress,
      userOwners: () => network.userOwners()
    }
    // So small that it can be made to overflow.
    flows = new FlowWatch(components, { eventBufferBytes: 65_536 })
    await flows.start()
    for (let round = 0; round < 250 && !(await isHeard()); round++) await delay(20)
  },
  takeFlows: async ({ all = false }) => flows?.take({ all }),
  flowLosses: async () => Promise.resolve(flows?.losses()),
  setEnds: async ({ ends: all = [] }) => ends.set(new Map(all)),
  holdFlows: async () => {
    held = await readers()
    for (const pid of held) process.kill(pid, 'SIGSTOP')
  },
  releaseFlows: async () => {
    for (const pid of held) process.kill(pid, 'SIGCONT')
    return Promise.resolve()
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const began = performance.now()
  try {
    const request = JSON.parse(line) as Request
    const result = await answers[request.op](request)
    console.log(JSON.stringify({ result, ms: performance.now() - began }))
  } catch (error) {
    const { code, message } = error as Error & { code?: string }
    console.log(JSON.stringify({ error: { code, message } }))
  }
}

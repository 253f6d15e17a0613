/**
 * The node's network in a process of its own, as the daemon runs it: in the namespace that it is started in. One JSON
 * request a line on standard input, one answer a line on standard output.
 */
import { createInterface } from 'node:readline'
import { systemClock } from '../../../src/base/clock.ts'
import { silentLogger } from '../../../src/base/log.ts'
import type { NetworkUser } from '../../../src/enforce/network.ts'
import { createNodeNetwork, type NodeLink } from '../../../src/enforce/network/node-network.ts'

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
    | 'egressBytes'
    | 'counters'
    | 'dropped'
    | 'remove'
  readonly id?: string
  readonly to?: string
  readonly link?: NodeLink
  readonly links?: readonly NodeLink[]
  readonly user?: NetworkUser
}

const network = createNodeNetwork(
  { clock: systemClock, logger: silentLogger },
  JSON.parse(process.argv[2] ?? '{}')
)

const answers: Record<Request['op'], (request: Request) => Promise<unknown>> = {
  start: async () => network.start(),
  stop: async () => network.stop(),
  attach: async ({ link }) => (link === undefined ? undefined : network.attach(link)),
  attachAll: async ({ links = [] }) => Promise.all(links.map((link) => network.attach(link))),
  rename: async ({ id, to }) => network.rename(id ?? '', to ?? ''),
  attachIds: async ({ user }) => (user === undefined ? undefined : network.attachIds(user)),
  detach: async ({ id = '' }) => network.detach(id),
  list: async () => network.list(),
  egressBytes: async ({ id = '' }) => network.egressBytes(id),
  counters: async () => {
    const { dropped, refused, ...counters } = await network.counters()
    return { ...counters, dropped: Object.fromEntries(dropped), refused: Object.fromEntries(refused) }
  },
  dropped: async ({ id = '' }) => network.dropped(id),
  remove: async () => network.remove()
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

/**
 * The node's network in a process of its own, as the daemon runs it: in the namespace that it is started in. One JSON
 * request a line on standard input, one answer a line on standard output.
 */
import { createInterface } from 'node:readline'
import { silentLogger } from '../../../src/base/log.ts'
import { createNodeNetwork, type NodeLink } from '../../../src/enforce/network/node-network.ts'

interface Request {
  readonly op: 'start' | 'stop' | 'attach' | 'detach' | 'list' | 'egressBytes' | 'counters' | 'remove'
  readonly id?: string
  readonly link?: NodeLink
}

const network = createNodeNetwork({ log: silentLogger }, JSON.parse(process.argv[2] ?? '{}'))

async function answer(request: Request): Promise<unknown> {
  const id = request.id ?? ''
  switch (request.op) {
    case 'attach':
      return request.link === undefined ? undefined : network.attach(request.link)
    case 'detach':
      return network.detach(id)
    case 'egressBytes':
      return network.egressBytes(id)
    case 'counters': {
      const { drops, refused } = await network.counters()
      return { drops, refused: Object.fromEntries(refused) }
    }
    default:
      return network[request.op]()
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const began = performance.now()
  try {
    const result = await answer(JSON.parse(line) as Request)
    console.log(JSON.stringify({ result, ms: performance.now() - began }))
  } catch (error) {
    const { code, message } = error as Error & { code?: string }
    console.log(JSON.stringify({ error: { code, message } }))
  }
}

/**
 * A program: one who holds leases, and speaks to a real agent and to real nodes over libp2p.
 *
 * It reads lines of JSON `{id, do, …}` and answers each with `{id, result}` or `{id, error: code}`, several at a time:
 * `ticket {node, durationMs}`, with `{supersedes, renews}` for the renewal of a lease, gives `{ticket, notAfter}`;
 * `redeem {ticket}`, always with the same demand for the same ticket, gives `{lease, vserver}` or `{refusal: code}`;
 * `delete {node, lease, vserver}` and `status {node, lease}`.
 * Argument: `{agent, image, peers: [{principal, multiaddr}]}`.
 */
import { createInterface } from 'node:readline'
import { systemClock } from '../../../src/base/clock.ts'
import { SlicenetError, asSlicenetError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/log.ts'
import { systemRandom } from '../../../src/base/random.ts'
import { createPeerHost } from '../../../src/peer/host.ts'
import { agentProtocol } from '../../../src/protocol/agent-protocol.ts'
import { nodeProtocol } from '../../../src/protocol/node-protocol.ts'
import { leaseObject } from '../../../src/ticket/lease.ts'
import { principalOfPublicKey } from '../../../src/ticket/principal.ts'
import { redeemObject } from '../../../src/ticket/redeem.ts'
import { refusalObject } from '../../../src/ticket/refusal.ts'
import { surrenderObject } from '../../../src/ticket/surrender.ts'
import { ticketObject } from '../../../src/ticket/ticket.ts'
import { nativeEd25519 } from '../../../src/wire/ed25519.ts'

export interface HolderInit {
  readonly agent: string
  readonly image: string
  readonly peers: readonly { readonly principal: string; readonly multiaddr: string }[]
}

interface Order {
  readonly id: number
  readonly do: string
  readonly node: string
  readonly durationMs: number
  readonly ticket: string
  readonly lease: string
  readonly vserver: string
  readonly supersedes?: string
  readonly renews?: string
}

interface Demand {
  readonly node: string
  readonly method: 'newLease' | 'renewLease'
  readonly params: { redeem: Uint8Array; delegation: Uint8Array; tickets: Uint8Array[] }
}

const CALL_MS = 20_000
const RESOURCES = {
  cpuMillis: 10,
  cpuMillisMax: 100,
  memoryBytes: 16 << 20,
  diskBytes: 16 << 20,
  egressBps: 10_000,
  egressBpsMax: 100_000,
  egressBytesPerDay: 1 << 20,
  pids: 16
}

const init = JSON.parse(process.argv[2] ?? '') as HolderInit
const seed = systemRandom.bytes(32)
const key = { seed, principal: principalOfPublicKey(nativeEd25519.publicKey(seed)) }
const host = createPeerHost(
  { logger: silentLogger, clock: systemClock },
  { key, listen: [], bootstrap: [], dhtMode: 'client' }
)
await host.start()
for (const { principal, multiaddr } of init.peers) await host.addAddresses(principal, [multiaddr])
const demands = new Map<string, Demand>()
const within = (): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(CALL_MS) })

async function ticket({ node, durationMs, supersedes, renews }: Order): Promise<object> {
  // A ticket for a renewal has the ports of the one before.
  const line =
    supersedes === undefined ? { ports: [{ protocol: 'tcp' as const }] } : { ports: [], supersedes }
  const request = { node, resources: RESOURCES, ...line, rights: [], durationMs }
  const call = host.caller(agentProtocol, init.agent)
  const { grants } = await call('getTickets', { slice: 'crash', requests: [request] }, within())
  const { chain, refusal } = grants[0] ?? {}
  // As of an agent to which a node that only just began has delegated nothing yet.
  if (refusal !== undefined) throw new SlicenetError('BUSY', refusalObject.open(refusal).body.message)
  const [delegation, bytes] = chain ?? []
  if (delegation === undefined || bytes === undefined) throw new TypeError('a grant is a chain or a refusal')
  const { id, body } = ticketObject.open(bytes)
  const now = Date.now()
  const redeem = redeemObject.sign(
    {
      issuer: key.principal,
      notBefore: now - 60_000,
      notAfter: now + 3_600_000,
      seq: now,
      ticket: id,
      ...(renews === undefined ? {} : { renews }),
      node,
      nonce: systemRandom.bytes(16),
      image: init.image,
      keys: []
    },
    key
  )
  const method = renews === undefined ? 'newLease' : 'renewLease'
  demands.set(id, { node, method, params: { redeem: redeem.bytes, delegation, tickets: [bytes] } })
  return { ticket: id, notAfter: body.notAfter }
}

async function redeem({ ticket }: Order): Promise<object> {
  const demand = demands.get(ticket)
  if (demand === undefined) throw new TypeError('no ticket of this holder')
  const reply = await host.caller(nodeProtocol, demand.node)(demand.method, demand.params, within())
  if (reply.lease === undefined) {
    return { refusal: refusalObject.open(reply.refusal ?? new Uint8Array()).body.code }
  }
  const { id, body } = leaseObject.open(reply.lease)
  if (body.ticket !== ticket) throw new TypeError('a lease for another ticket')
  return { lease: id, vserver: body.vserver }
}

async function remove({ node, lease, vserver }: Order): Promise<object> {
  const now = Date.now()
  const surrender = surrenderObject.sign(
    {
      issuer: key.principal,
      notBefore: now - 60_000,
      notAfter: now + 3_600_000,
      seq: now,
      node,
      lease,
      vserver
    },
    key
  )
  return host.caller(nodeProtocol, node)('deleteLease', { lease, surrender: surrender.bytes }, within())
}

const orders: Readonly<Record<string, (order: Order) => Promise<object>>> = {
  ticket,
  redeem,
  delete: remove,
  status: ({ node, lease }) => host.caller(nodeProtocol, node)('status', { lease, usage: false }, within())
}

async function answer(order: Order): Promise<object> {
  try {
    return { result: await orders[order.do]?.(order) }
  } catch (error) {
    return { error: asSlicenetError(error).code, message: String(error).slice(0, 300) }
  }
}

const lines = createInterface({ input: process.stdin })
lines.on('line', (line) => {
  const order = JSON.parse(line) as Order
  void answer(order).then((reply) => process.stdout.write(`${JSON.stringify({ id: order.id, ...reply })}\n`))
})
lines.on('close', () => process.exit(0))
process.stdout.write(`${JSON.stringify({ ready: true })}\n`)

/**
 * Finding one node's advert, as a stranger does that knows its key alone or joins the directory, beside the same put and
 * get through the bare kad-dht of the same peers and through a testnet of hyperdht of as many.
 */
import { createRequire } from 'node:module'
import { randomBytes } from 'node:crypto'
import { figure, median, type BenchContext, type Figure } from '../figure.ts'
import type { RealOverlay, RealPeer } from './real-overlay.ts'

const RUNS = 12
const OPERATION_MS = 20_000
const RECORD_BYTES = 600

/** What is used of hyperdht, which has no types of its own. */
interface HyperDht {
  immutablePut(value: Uint8Array): Promise<{ readonly hash: Uint8Array }>
  immutableGet(hash: Uint8Array): Promise<{ readonly value: Uint8Array } | null>
}
interface Testnet {
  readonly nodes: readonly HyperDht[]
  destroy(): Promise<void>
}
type CreateTestnet = (size: number, options: { readonly host: string }) => Promise<Testnet>

interface Times {
  readonly put: number[]
  readonly get: number[]
}

export async function lookups(overlay: RealOverlay, context: BenchContext): Promise<Figure[]> {
  const { progress } = context
  progress('looking adverts up by key')
  const byKey = await findByKey(overlay, context)
  progress('the same put and get through bare kad-dht')
  const kad = await bareKad(overlay, context)
  progress('the same put and get through hyperdht')
  const hyper = await hyperdht(overlay.peers.length, context)
  const ms = { unit: 'ms' }
  const ratio = (over: readonly number[]): number[] => [median(byKey) / median(over)]
  return [
    figure('find_by_key_ms', byKey, ms),
    figure('kad_put_ms', kad.put, ms),
    figure('kad_get_ms', kad.get, ms),
    figure('hyperdht_put_ms', hyper.put, ms),
    figure('hyperdht_get_ms', hyper.get, ms),
    figure('find_over_kad_dht', ratio(kad.get), { unit: 'ratio' }),
    figure('find_over_hyperdht', ratio(hyper.get), { unit: 'ratio' })
  ]
}

/** A node that never heard of the other asks for its advert; agents would have it in their table. */
async function findByKey(overlay: RealOverlay, { signal }: BenchContext): Promise<number[]> {
  const nodes = overlay.ofRole('node')
  const times: number[] = []
  for (let run = 0; run < RUNS; run++) {
    signal.throwIfAborted()
    const [seeker, wanted] = [nodes[run]!, nodes[nodes.length - 1 - run]!]
    const began = performance.now()
    const entry = await seeker.directory.lookup(wanted.key.principal, { role: 'node' }).catch(() => undefined)
    if (entry !== undefined) times.push(performance.now() - began)
  }
  // One that was not found took for ever.
  while (times.length < RUNS) times.push(Infinity)
  return times
}

async function bareKad(overlay: RealOverlay, { signal }: BenchContext): Promise<Times> {
  const nodes = overlay.ofRole('node')
  const put: number[] = []
  const get: number[] = []
  for (let run = 0; run < RUNS; run++) {
    signal.throwIfAborted()
    const [writer, reader] = [nodes[run]!, nodes[nodes.length - 1 - run]!]
    const advert = writer.directory.get(writer.key.principal, 'node')?.advert
    if (advert === undefined) continue
    const key = Buffer.from(`/slicenet-ad/${writer.key.principal}/node`)
    put.push(await timed(async () => drain(kadOf(writer).put(key, advert.bytes, limit()))))
    get.push(await timed(async () => drain(kadOf(reader).get(key, limit()))))
  }
  return { put, get }
}

function kadOf({ host }: RealPeer): RealPeer['host']['libp2p']['services']['dht'] {
  return host.libp2p.services.dht
}

function limit(): { readonly signal: AbortSignal } {
  return { signal: AbortSignal.timeout(OPERATION_MS) }
}

async function drain(events: AsyncIterable<unknown>): Promise<void> {
  try {
    for await (const _event of events);
  } catch {
    // kad-dht fails a read when one peer refuses to be corrected; the time counts all the same.
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await work()
  return performance.now() - began
}

async function hyperdht(size: number, { signal }: BenchContext): Promise<Times> {
  const createTestnet = createRequire(import.meta.url)('hyperdht/testnet') as CreateTestnet
  const testnet = await createTestnet(size, { host: '127.0.0.1' })
  try {
    const put: number[] = []
    const get: number[] = []
    for (let run = 0; run < RUNS; run++) {
      signal.throwIfAborted()
      const [writer, reader] = [testnet.nodes[run]!, testnet.nodes[size - 1 - run]!]
      let hash: Uint8Array = new Uint8Array()
      put.push(await timed(async () => ({ hash } = await writer.immutablePut(randomBytes(RECORD_BYTES)))))
      get.push(await timed(async () => reader.immutableGet(hash)))
    }
    return { put, get }
  } finally {
    await testnet.destroy()
  }
}

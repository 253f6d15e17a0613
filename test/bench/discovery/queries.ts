/** How long a query over ten thousand adverts takes the broker. */
import { systemClock } from '../../../src/base/clock.ts'
import { silentLogger } from '../../../src/base/log.ts'
import { Broker } from '../../../src/broker/broker.ts'
import { AdvertTable } from '../../../src/peer/advert-table.ts'
import { newKey, nodeAdvert } from '../../peer/fixtures/network.ts'
import { figure, type BenchContext, type Figure } from '../figure.ts'

const ADVERTS = 10_000
const RUNS = 15
const REGIONS = ['eu', 'us', 'asia', 'africa']
const QUERY =
  'node.cpu.free >= 2000 && node.region == "eu" && node.kernel != "5.10" && node.memory.free > 1000000000'

export async function queries({ signal, progress }: BenchContext): Promise<Figure[]> {
  progress(`signing ${ADVERTS} adverts`)
  const table = new AdvertTable({ clock: systemClock })
  for (let i = 0; i < ADVERTS; i++) {
    const free = {
      cpuMillis: (i % 40) * 100,
      cpuMillisMax: 8000,
      memoryBytes: (i % 16) * 1_000_000_000,
      diskBytes: 100_000_000_000,
      egressBps: 100_000_000,
      egressBpsMax: 1_000_000_000,
      egressBytesPerDay: 100_000_000_000,
      pids: 4096
    }
    const attributes = {
      region: REGIONS[i % REGIONS.length]!,
      site: `site-${i % 400}`,
      kernel: '6.1.0',
      os: 'linux'
    }
    table.offer(nodeAdvert(newKey(), { capacity: free, free, attributes, name: `node-${i}` }).bytes, 'gossip')
  }
  const { principal } = newKey()
  const broker = new Broker({
    principal,
    directory: { refresh: async () => 0, entries: () => table.entries() },
    clock: systemClock,
    logger: silentLogger,
    callAgent: () => async () => Promise.reject(new TypeError('nobody is asked'))
  })
  const samples: number[] = []
  let found = 0
  for (let run = 0; run < RUNS; run++) {
    signal.throwIfAborted()
    const began = performance.now()
    found = (await broker.find(QUERY)).found.length
    samples.push(performance.now() - began)
  }
  progress(`${found} of ${table.entries().length} adverts match`)
  return [figure('query_10000_ms', samples, { unit: 'ms', atMost: 50 })]
}

import test from 'ava'
import { purchaseOf } from '../../src/daemon/agent-role.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { makeKey } from '../ticket/fixtures.ts'

const node = makeKey().principal
const other = makeKey().principal
const purchase = `{ node: ${node}, cpu: 2, memory: 1GiB, disk: 2GiB, egress: 10Mbps, egressPerDay: 1GiB, pids: 64, ports: { tcp: 2 } }`
const config = (agent: string): string => `name: one\nagent:\n${agent}`
const suppliers = (nodes: string): string =>
  config(`  suppliers:\n    - address: /ip4/192.0.2.8/tcp/4001/p2p/${other}\n      nodes: [${nodes}]`)

test('an agent has no partners and no suppliers unless it is told so, and a bound on what one holder has', (t) => {
  const { agent } = parseConfig(config('  hold: 5m'), 'file')
  t.like(agent, { partners: [], suppliers: [], ticketsPerHolder: 256 })
  t.like(parseConfig(config(`  partners: [${other}]\n  ticketsPerHolder: 3`), 'file').agent, {
    partners: [other],
    ticketsPerHolder: 3
  })
})

test('what is to be got of another agent is a request for one node', (t) => {
  const [supplier] = parseConfig(suppliers(purchase), 'file').agent?.suppliers ?? []
  const [first] = supplier?.nodes ?? []
  if (first === undefined) return t.fail()
  return t.deepEqual(purchaseOf(first), {
    node,
    resources: {
      cpuMillis: 2000,
      cpuMillisMax: 2000,
      memoryBytes: 1024 ** 3,
      diskBytes: 2 * 1024 ** 3,
      egressBps: 10_000_000,
      egressBpsMax: 10_000_000,
      egressBytesPerDay: 1024 ** 3,
      pids: 64
    },
    ports: [{ protocol: 'tcp' }, { protocol: 'tcp' }],
    rights: [],
    durationMs: 24 * 3_600_000
  })
})

const wrong: Readonly<Record<string, readonly [yaml: string, says: RegExp]>> = {
  'one node twice': [suppliers(`${purchase}, ${purchase}`), /every node once/],
  'more ports than a ticket has': [
    suppliers(purchase.replace('tcp: 2', 'tcp: 60, udp: 5')),
    /at most 64 ports/
  ],
  'no amount of memory': [suppliers(purchase.replace('memory: 1GiB, ', '')), /memory/],
  'a partner that is no peer': [config('  partners: [somebody]'), /peer ID/],
  'no ticket for anybody': [config('  ticketsPerHolder: 0'), /ticketsPerHolder/]
}
for (const [name, [yaml, says]] of Object.entries(wrong)) {
  test(`a configuration with ${name} is CONFIG_INVALID`, (t) => {
    t.throws(() => parseConfig(yaml, 'file'), { code: 'CONFIG_INVALID', message: says })
  })
}

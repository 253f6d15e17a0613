/** A good message for every part of every method that peers call, which the fuzzing changes. */
import { NO_RESOURCES } from '../../src/ticket/resources.ts'

const PEER = '12D3KooWQ128gHPkbGjfwFkGnwnJYrkz4hNWMN5oNobchojZbhKt'
const ID = `bafyrei${'a'.repeat(52)}`
const OBJECT = new Uint8Array(40).fill(7)
const KEY = `${PEER}/node`
const FRAUD = `over-issued/${PEER}`
const PROGRAM = { argv: ['/bin/sh', '-c', 'true'], env: { HOME: '/root' }, cwd: '/', user: 'root:root' }

export interface GoodMethod {
  readonly params: unknown
  readonly result: unknown
  readonly item?: unknown
  readonly input?: unknown
}

const lease = { lease: ID }

export const goodAgentMessages: Readonly<Record<string, GoodMethod>> = {
  delegate: {
    params: { delegation: OBJECT },
    result: { taken: false, lacking: [OBJECT], unknown: [ID] }
  },
  getAds: {
    params: { query: 'node.region == "eu"' },
    item: { advert: OBJECT, available: NO_RESOURCES, until: 1, reliability: 1000 },
    result: { ratings: [{ agent: PEER, reliability: 500 }] }
  },
  getTickets: {
    params: {
      slice: 'mesh',
      memberships: [OBJECT],
      requests: [
        {
          node: PEER,
          resources: NO_RESOURCES,
          ports: [{ protocol: 'tcp' }, { protocol: 'udp', port: 53 }, { protocol: 'gre', port: 7, last: 9 }],
          rights: ['administrative', 'cap-net-raw'],
          shaping: { icmpBps: 64_000, destinationsPerMinute: 30, egressShare: 3 },
          durationMs: 60_000,
          supersedes: ID,
          canDelegate: true
        }
      ]
    },
    result: {
      grants: [
        { node: PEER, chain: [OBJECT, OBJECT] },
        { node: PEER, refusal: OBJECT }
      ]
    }
  },
  report: { params: { receipts: [{ redeem: OBJECT, lease: OBJECT, refusal: OBJECT }] }, result: {} },
  releaseTickets: { params: { tickets: [ID] }, result: {} }
}

export const goodNodeMessages: Readonly<Record<string, GoodMethod>> = {
  newLease: {
    params: { redeem: OBJECT, delegation: OBJECT, tickets: [OBJECT], memberships: [OBJECT] },
    result: { lease: OBJECT }
  },
  renewLease: {
    params: { redeem: OBJECT, delegation: OBJECT, tickets: [OBJECT] },
    result: { refusal: OBJECT }
  },
  revoke: { params: { revocation: OBJECT, delegation: OBJECT, tickets: [] }, result: {} },
  settleTickets: { params: { tickets: [OBJECT], cancel: true }, result: { states: ['open', 'ended'] } },
  deleteLease: { params: { ...lease, surrender: OBJECT }, result: {} },
  upload: {
    params: { ...lease, files: [{ path: '/etc/motd', content: OBJECT, mode: 0o644 }] },
    result: {}
  },
  launch: { params: { ...lease, program: PROGRAM }, result: {} },
  stop: { params: lease, result: {} },
  signal: { params: { ...lease, signal: 'SIGHUP' }, result: {} },
  freeze: { params: lease, result: {} },
  thaw: { params: lease, result: {} },
  status: {
    params: { ...lease, usage: true },
    result: {
      state: 'exited',
      notAfter: 1,
      exitCode: 0,
      restarts: 2,
      frozen: true,
      egressNarrowed: true,
      usage: { cpuMicros: 1, memoryBytes: 2, pids: 3, diskBytes: 4, egressBytes: 5 }
    }
  },
  counters: { params: lease, result: { dropped: { source: 3, untracked: 10_000 } } },
  exec: {
    params: { ...lease, program: PROGRAM, terminal: { columns: 80, rows: 24 } },
    input: { bytes: OBJECT, terminal: { columns: 90, rows: 30 } },
    item: { stream: 'stdout', bytes: OBJECT },
    result: { exitCode: 1 }
  },
  logs: {
    params: { ...lease, follow: false },
    item: { stream: 'stderr', time: 1, bytes: OBJECT },
    result: {}
  },
  addKey: { params: { ...lease, key: 'ssh-ed25519 AAAA' }, result: {} },
  delKey: { params: { ...lease, key: 'ssh-ed25519 AAAA' }, result: {} },
  getKeys: { params: lease, result: { keys: ['ssh-ed25519 AAAA'] } }
}

export const goodDirectoryMessages: Readonly<Record<string, GoodMethod>> = {
  about: { params: {}, result: { collects: true, adverts: 3 } },
  pull: {
    params: { after: '', through: KEY, digest: [[KEY, 1]] },
    item: { advert: OBJECT },
    result: { through: null, wants: [KEY] }
  },
  publish: { params: { adverts: [OBJECT] }, result: { accepted: 1 } },
  proofs: { params: {}, result: { keys: [FRAUD] } },
  getProofs: { params: { keys: [FRAUD] }, item: { bundle: OBJECT }, result: {} },
  giveProof: { params: { bundle: OBJECT }, result: { accepted: true } }
}

export const goodBrokerMessages: Readonly<Record<string, GoodMethod>> = {
  getAds: { params: { query: 'node.region == "eu"' }, item: { advert: OBJECT }, result: {} },
  plan: {
    params: {
      want: {
        count: 3,
        minimum: 2,
        query: 'node.region == "eu"',
        distinct: ['site'],
        spread: 'organisation',
        rank: 'node.cpu.free',
        pairwise: 'rtt_ms < 80',
        resources: NO_RESOURCES,
        ports: [{ protocol: 'tcp' }],
        rights: ['raw-socket'],
        shaping: { optionsBps: 8000, newDestinationsBps: 16_000 },
        durationMs: 60_000,
        image: 'debian'
      }
    },
    item: {
      member: { node: PEER, name: 'n1', agent: PEER, rank: '12' },
      rejection: { node: PEER, name: 'n2', failed: [{ clause: 'node.region == "eu"', value: '"us"' }] }
    },
    result: { satisfiable: false, reason: 'one node matches where two are needed' }
  }
}

export const goodMeasureMessages: Readonly<Record<string, GoodMethod>> = {
  coordinate: { params: {}, result: { coordinate: { vector: [1, -2, 3, -4], height: 5, error: 1000 } } },
  ping: { params: { targets: [PEER] }, result: { rttMicros: [1500, null] } },
  sink: { params: {}, input: { bytes: OBJECT }, result: { bytes: 40, micros: 12 } }
}

export const goodReachMessages: Readonly<Record<string, GoodMethod>> = {
  dialBack: { params: { addresses: ['/ip4/192.0.2.1/tcp/4001'] }, result: { tried: 1, reached: true } }
}

export const goodMembershipMessages: Readonly<Record<string, GoodMethod>> = {
  show: { params: { memberships: [OBJECT] }, result: { admitted: true } }
}

const IMAGE = `sha256:${'a'.repeat(64)}`

export const goodImageMessages: Readonly<Record<string, GoodMethod>> = {
  fetch: { params: { image: IMAGE, offset: 65_536 }, item: { bytes: OBJECT }, result: { bytes: 65_576 } }
}

/** Views as a daemon gives them. */
import type { MemberView, SliceView } from '../../src/cli/slice-view.ts'
import type { ControlMethods } from '../../src/daemon/control-client.ts'
import type { LeaseView, NodeView } from '../../src/daemon/control-protocol.ts'
import type { Handlers } from '../../src/protocol/method.ts'
import { agentKey, delegation, holderKey, nodeKey, NOW, ticketOf } from '../daemon/signed-objects.ts'

const MIB = 1024 * 1024
const ticket = ticketOf({ cpuMillis: 200 })
const RESOURCES = {
  cpuMillis: 200,
  cpuMillisMax: 1000,
  memoryBytes: 64 * MIB,
  diskBytes: 64 * MIB,
  egressBps: 1_000_000,
  egressBpsMax: 10_000_000,
  egressBytesPerDay: 1024 * MIB,
  pids: 64
}

export const nodeView: NodeView = {
  id: nodeKey.principal,
  name: 'node1',
  attributes: { region: 'eu' },
  capacity: { ...RESOURCES, cpuMillis: 2000 },
  free: RESOURCES,
  images: { debian: `sha256:${'a'.repeat(64)}` },
  agents: [agentKey.principal],
  multiaddrs: ['/ip4/198.18.0.1/tcp/4001'],
  advertisedAt: NOW,
  expiresAt: NOW + 60_000,
  via: 'gossip',
  receivedAt: NOW + 1000,
  ageMs: 5000,
  rights: []
}

/** A daemon that finds these nodes, whatever the query. */
export function finding(...nodes: NodeView[]): Pick<Handlers<ControlMethods>, 'find'> {
  return {
    async find(_, { emit }) {
      for (const node of nodes) await emit({ node })
      return {}
    }
  }
}

export function memberView(nodeName: string, changes: Partial<MemberView> = {}): MemberView {
  return {
    node: nodeKey.principal,
    nodeName,
    agent: agentKey.principal,
    agentName: 'agent1',
    lease: delegation.id,
    ticket: ticket.id,
    vserver: `mesh-${nodeName}`,
    address: '198.18.0.1',
    ports: [{ protocol: 'tcp', first: 9000, last: 9000 }],
    notBefore: NOW,
    notAfter: NOW + 1_800_000,
    state: 'running',
    ...changes
  }
}

export function sliceView(name: string, members: readonly MemberView[]): SliceView {
  return {
    name,
    state: 'active',
    count: members.length,
    createdAt: NOW,
    notAfter: NOW + 1_800_000,
    renew: false,
    members: [...members]
  }
}

export const leaseView: LeaseView = {
  lease: delegation.id,
  slice: 'mesh',
  node: nodeKey.principal,
  holder: holderKey.principal,
  ticket: ticket.id,
  vserver: 'mesh-1',
  address: '198.18.0.1',
  resources: RESOURCES,
  ports: [{ protocol: 'tcp', first: 9000, last: 9002 }],
  notBefore: NOW,
  notAfter: NOW + 1_800_000,
  state: 'running'
}

/** What the daemon answers on its control socket, over the parts of the peer. */
import { SlicenetError } from '../base/errors.ts'
import { nodeProtocol } from '../protocol/node-protocol.ts'
import type { Handlers } from '../protocol/method.ts'
import type { MemberRecord } from '../service/slice-book.ts'
import { reasonOf } from '../service/slice.ts'
import type { Lease } from '../ticket/lease.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { PeerParts } from './compose.ts'
import { Confirmation } from './confirmation.ts'
import type { DaemonConfig } from './config.ts'
import { contactHandlers } from './contact-handlers.ts'
import type { ControlMethods } from './control-client.ts'
import { MEMBER_ACTS, type LeaseView, type MemberAct } from './control-protocol.ts'
import { discoveryHandlers } from './discovery-handlers.ts'
import { flowHandlers } from './flow-handlers.ts'
import { joinHandlers } from './join-handlers.ts'
import { supplyHandlers } from './supply-handlers.ts'
import { proofHandlers, ticketHandlers } from './trust-handlers.ts'
import { VERSION } from './version.ts'

type ControlHandlers = Handlers<ControlMethods>

export interface ControlHandlersInit {
  readonly config: DaemonConfig
  /** UTC ms. */
  readonly startedAt: number
  /** Told when somebody asks the daemon to end. */
  readonly onShutdown: (options: { readonly giveUpNode: boolean }) => Promise<void>
}

export function controlHandlers(parts: () => PeerParts, init: ControlHandlersInit): ControlHandlers {
  return {
    ...overviewHandlers(parts, init),
    ...discoveryHandlers(parts),
    ...sliceHandlers(parts),
    ...memberHandlers(parts),
    ...ticketHandlers(parts),
    ...proofHandlers(parts),
    ...joinHandlers(parts),
    ...contactHandlers(parts),
    ...supplyHandlers(parts),
    ...flowHandlers(parts),
    async shutdown(options) {
      await init.onShutdown(options)
      return {}
    }
  }
}

function overviewHandlers(
  parts: () => PeerParts,
  { config, startedAt }: ControlHandlersInit
): Pick<ControlHandlers, 'status' | 'leaseList' | 'leaseAudit' | 'nodePorts'> {
  return {
    async status() {
      const { host, directory, node, agent, brokering } = parts()
      const adverts = directory.entries().map(({ advert }) => advert.body.role)
      return {
        version: VERSION,
        principal: host.principal,
        name: config.name,
        roles: [
          ...(node === undefined ? [] : ['node' as const]),
          ...(agent === undefined ? [] : ['agent' as const]),
          ...(brokering === undefined ? [] : ['broker' as const])
        ],
        multiaddrs: host.multiaddrs(),
        pid: process.pid,
        startedAt,
        peers: host.connected().length,
        nodesKnown: adverts.filter((role) => role === 'node').length,
        agentsKnown: adverts.filter((role) => role === 'agent').length,
        delegations: node?.delegations ?? agent?.delegations ?? 0,
        leases: node?.manager.table.holding().length ?? 0,
        warnings: [...(node?.warnings ?? [])]
      }
    },
    async leaseAudit({ last }) {
      const { node } = parts()
      if (node === undefined) {
        throw new SlicenetError('NOT_FOUND', 'this peer is no node, so there are no leases on it')
      }
      return { entries: await node.audit.read(last) }
    },
    async nodePorts() {
      const { node } = parts()
      if (node === undefined)
        throw new SlicenetError('NOT_FOUND', 'this peer is no node, so it leases no ports')
      return { ports: await node.ports() }
    },
    // oxlint-disable-next-line typescript/require-await -- handlers are asynchronous.
    async leaseList() {
      const { node, services } = parts()
      const onNode = node?.manager.table.all() ?? []
      const held = services.records().flatMap(({ description: { name } }) => services.members(name))
      return {
        leases: [
          ...onNode.map(({ lease, state }) => leaseView(lease, state)),
          ...held.flatMap(({ lease }) => (lease === undefined ? [] : [leaseView(lease, 'held')]))
        ]
      }
    }
  }
}

function sliceHandlers(
  parts: () => PeerParts
): Pick<
  ControlHandlers,
  'sliceCreate' | 'sliceList' | 'sliceShow' | 'sliceWatch' | 'sliceRenew' | 'sliceDelete'
> {
  return {
    async sliceCreate(description, { emit, input, signal }) {
      const { services } = parts()
      const caller = new Confirmation(input, signal)
      const until = AbortSignal.any([signal, caller.gone])
      const slice = await services.create(description, { onProgress: emit, signal: until })
      const { name, state } = slice
      if (await caller.keeps(() => emit({ step: 'made', message: `${name} is ${state}` }))) return slice
      await services.delete(name)
      throw new SlicenetError('INTERRUPTED', `the caller gave ${name} up`)
    },
    sliceList: async (params, { signal }) => ({ slices: await parts().services.list({ ...params, signal }) }),
    sliceShow: ({ slice }, { signal }) => parts().services.show(slice, { signal }),
    async sliceWatch({ slice }, { emit, signal }) {
      for await (const news of parts().services.watch(slice, { signal })) await emit(news)
      return {}
    },
    sliceRenew: ({ slice, ...term }, { emit, signal }) =>
      parts().services.renew(slice, { ...term, onProgress: emit, signal }),
    async sliceDelete({ slice }, { emit, signal }) {
      const { deleted, unreachable } = await parts().services.delete(slice, { onProgress: emit, signal })
      return { deleted, unreachable: [...unreachable] }
    }
  }
}

interface EachMember<T> {
  readonly work: (member: MemberRecord, lease: string) => Promise<T>
  /** What is told beside the reason where it failed. */
  readonly otherwise: T
  readonly signal: AbortSignal
}

function memberHandlers(
  parts: () => PeerParts
): Pick<ControlHandlers, 'sliceAct' | 'sliceCounters' | 'sliceExec' | 'sliceLogs'> {
  const callNode = (member: MemberRecord) => parts().host.caller(nodeProtocol, member.node)
  const act = async (member: MemberRecord, lease: string, wanted: MemberAct, signal: AbortSignal) => {
    const call = callNode(member)
    if (isNamed(MEMBER_ACTS, wanted)) await call(wanted, { lease }, { signal })
    else await call('signal', { lease, signal: wanted }, { signal })
  }
  /** Does something with all members that have a lease, at once, and gives what came of it or why it failed. */
  const withEach = async <T extends object>(
    { slice, member: prefix }: { readonly slice: string; readonly member?: string },
    { work, otherwise, signal }: EachMember<T>
  ) => {
    const members = parts()
      .services.members(slice, prefix)
      .flatMap((member) => (member.lease === undefined ? [] : [{ member, lease: member.lease.id }]))
    const outcomes = members.map(async ({ member, lease }) => {
      const about = { node: member.node, nodeName: member.nodeName, lease }
      try {
        return { ...about, ...(await work(member, lease)) }
      } catch (error) {
        signal.throwIfAborted()
        return { ...about, ...otherwise, reason: reasonOf(error) }
      }
    })
    return Promise.all(outcomes)
  }
  return {
    async sliceAct({ act: wanted, ...named }, { signal }) {
      const work = async (member: MemberRecord, lease: string) => {
        await act(member, lease, wanted, signal)
        return {}
      }
      return { members: await withEach(named, { work, otherwise: {}, signal }) }
    },
    async sliceCounters(named, { signal }) {
      const work = async (member: MemberRecord, lease: string) =>
        callNode(member)('counters', { lease }, { signal })
      return { members: await withEach(named, { work, otherwise: { dropped: {} }, signal }) }
    },
    async sliceExec({ slice, member: prefix, ...program }, { input, emit, signal }) {
      const [member] = parts().services.members(slice, prefix)
      const lease = member?.lease?.id
      if (member === undefined || lease === undefined) {
        throw new SlicenetError('NOT_FOUND', `slice ${slice} has no member to run on`)
      }
      return callNode(member)('exec', { lease, ...program }, { onItem: emit, input, signal })
    },
    async sliceLogs({ slice, member: prefix, follow }, { emit, signal }) {
      const members = parts().services.members(slice, prefix)
      await Promise.all(
        members.map(async (member) => {
          if (member.lease === undefined) return
          const { node, nodeName } = member
          await callNode(member)(
            'logs',
            { lease: member.lease.id, follow },
            {
              onItem: (item) => emit({ node, nodeName, ...item }),
              signal
            }
          )
        })
      )
      return {}
    }
  }
}

function isNamed<T extends string>(names: readonly T[], name: string): name is T {
  return (names as readonly string[]).includes(name)
}

function leaseView({ id, body }: Signed<Lease>, state: string): LeaseView {
  const { slice, issuer, holder, ticket, vserver, address, resources, ports, rights, shaping } = body
  const { notBefore, notAfter } = body
  return {
    lease: id,
    slice,
    node: issuer,
    holder,
    ticket,
    vserver,
    address,
    resources,
    ports: [...ports],
    rights: [...rights],
    ...(shaping === undefined ? {} : { shaping }),
    notBefore,
    notAfter,
    state
  }
}

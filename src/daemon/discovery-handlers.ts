/** What the daemon answers about the nodes that there are. */
import { SlicenetError } from '../base/errors.ts'
import { watchNodes } from '../broker/watch.ts'
import type { Directory } from '../peer/directory.ts'
import type { PlannedMember } from '../protocol/broker-protocol.ts'
import type { Handlers } from '../protocol/method.ts'
import { clauseText } from '../query/clauses.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import { estimatedRttMicros } from '../ticket/coordinate.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { PeerParts } from './compose.ts'
import type { ControlMethods } from './control-client.ts'
import type { NodeView, PlannedMemberView } from './control-protocol.ts'

type Parts = Pick<PeerParts, 'broker' | 'directory' | 'clock' | 'otherBrokers'>

/** Of the nodes that do not match, so many are told of with an error; explaining tells of all. */
const MISMATCHES_TOLD_MAX = 100

type Answered<M extends keyof ControlMethods> = Pick<Handlers<ControlMethods>, M>

export function discoveryHandlers(parts: () => Parts): Answered<'find' | 'discover' | 'explain' | 'plan'> {
  return { ...nodeHandlers(parts), ...planHandlers(parts) }
}

function nodeHandlers(parts: () => Parts): Answered<'find' | 'discover'> {
  return {
    async find({ query }, { emit, signal }) {
      const { broker } = parts()
      const { found, mismatches } = await broker.find(query, { signal })
      for (const node of found) await emit({ node: nodeView(node, parts()) })
      if (found.length > 0) return {}
      if (mismatches.length === 0) {
        throw new SlicenetError('NO_MATCH', 'no node is known', {
          hint: 'see with `slicenet status` whether this peer is connected; adverts may take a moment after a start',
          details: { nodes: [] }
        })
      }
      const told = mismatches.slice(0, MISMATCHES_TOLD_MAX)
      throw new SlicenetError('NO_MATCH', `none of ${mismatches.length} nodes matches`, {
        ...(told.length < mismatches.length ? { hint: 'see why of every node with `slicenet explain`' } : {}),
        details: {
          nodes: told.map(({ node, name, failed }) => ({ node, name, failed: failed.map(clauseText) }))
        }
      })
    },
    async discover({ query }, { emit, signal }) {
      const { directory, clock, otherBrokers } = parts()
      const events = watchNodes({ directory, clock }, query, { signal })
      // What these bring is seen as it comes; whoever watches does not wait for it.
      void directory.refresh({ signal }).catch(() => {})
      void otherBrokers.ask(query, { signal }).catch(() => {})
      for await (const { type, entry } of events) await emit({ event: type, node: nodeView(entry, parts()) })
      return {}
    }
  }
}

function planHandlers(parts: () => Parts): Answered<'explain' | 'plan'> {
  return {
    async explain(what, { emit, signal }) {
      const { broker, clock } = parts()
      const explanations = await broker.explain(what, { signal })
      for (const explanation of explanations) {
        const { node, name, matches, failed, via } = explanation
        const ageMs = ageOf(explanation, clock.now())
        await emit({ node, name, matches, failed: [...failed], via, ageMs })
      }
      return {}
    },
    async plan({ want, broker: other }, { emit, signal }) {
      const { broker, directory, otherBrokers } = parts()
      const { members, rejections, ...result } =
        other === undefined
          ? await broker.plan(want, { signal })
          : await otherBrokers.plan(want, other === 'any' ? undefined : other, { signal })
      for (const member of plannedMemberViews(members, directory)) await emit({ member })
      for (const rejection of rejections) await emit({ rejection })
      return result
    }
  }
}

/** The members with what the directory knows of them. */
export function plannedMemberViews(
  members: readonly PlannedMember[],
  directory: Pick<Directory, 'get'>
): PlannedMemberView[] {
  const bodyOf = (principal: Principal, role: 'node' | 'agent') => directory.get(principal, role)?.advert.body
  const coordinates = members.map(({ node }) => {
    const body = bodyOf(node, 'node')
    return body?.role === 'node' ? body.coordinate : undefined
  })
  return members.map((member, index) => {
    const site = bodyOf(member.node, 'node')?.attributes['site']
    const agentName = bodyOf(member.agent, 'agent')?.name
    const own = coordinates[index]
    const times = coordinates.flatMap((other, at) =>
      own === undefined || other === undefined || at === index
        ? []
        : [Math.round(estimatedRttMicros(own, other))]
    )
    return {
      ...member,
      ...(typeof site === 'string' ? { site } : {}),
      ...(agentName === undefined ? {} : { agentName }),
      ...(times.length === 0 ? {} : { rttMicros: Math.max(...times) })
    }
  })
}

export interface HeardNode {
  readonly advert: Signed<NodeAdvertisement>
  readonly via: string
  readonly receivedAt: number
}

export function nodeView(
  { advert, via, receivedAt }: HeardNode,
  { broker, clock }: Pick<Parts, 'broker' | 'clock'>
): NodeView {
  const { body } = advert
  const { coordinate, accepts } = body
  const now = clock.now()
  const reliability = broker.reliabilityOf(body.issuer)
  return {
    id: body.issuer,
    name: body.name,
    attributes: body.attributes,
    capacity: body.capacity,
    free: body.free,
    images: body.images,
    agents: [...body.agents],
    multiaddrs: [...body.multiaddrs],
    advertisedAt: body.notBefore,
    expiresAt: body.notAfter,
    via,
    receivedAt,
    ageMs: ageOf({ advert, receivedAt }, now),
    rights: [...(body.rights ?? [])],
    ...(reliability === undefined ? {} : { reliability }),
    ...(accepts === undefined ? {} : { accepts }),
    ...(coordinate === undefined ? {} : { coordinate })
  }
}

/** Either clock may be behind the other. */
function ageOf({ advert, receivedAt }: Omit<HeardNode, 'via'>, now: number): number {
  return Math.max(0, now - advert.body.notBefore, now - receivedAt)
}

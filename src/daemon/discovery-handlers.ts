/** What the daemon answers about the nodes that there are. */
import { SlicenetError } from '../base/errors.ts'
import { watchNodes } from '../broker/watch.ts'
import type { Handlers } from '../protocol/method.ts'
import { clauseText } from '../query/query.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { PeerParts } from './compose.ts'
import type { ControlMethods } from './control-client.ts'
import type { NodeView } from './control-protocol.ts'

type Parts = Pick<PeerParts, 'broker' | 'directory' | 'clock'>

export function discoveryHandlers(parts: () => Parts): Pick<Handlers<ControlMethods>, 'find' | 'discover'> {
  return {
    async find({ query }, { signal }) {
      const { broker } = parts()
      const { found, mismatches } = await broker.find(query, { signal })
      if (found.length > 0) return { nodes: found.map((node) => nodeView(node, parts())) }
      if (mismatches.length === 0) {
        throw new SlicenetError('NO_MATCH', 'no node is known', {
          hint: 'see with `slicenet status` whether this peer is connected; adverts may take a moment after a start',
          details: { nodes: [] }
        })
      }
      throw new SlicenetError('NO_MATCH', `none of ${mismatches.length} nodes matches`, {
        details: {
          nodes: mismatches.map(({ node, name, failed }) => ({ node, name, failed: failed.map(clauseText) }))
        }
      })
    },
    async discover({ query }, { emit, signal }) {
      const { directory, clock } = parts()
      const events = watchNodes({ directory, clock }, query, { signal })
      // What it brings is seen as it comes; whoever watches does not wait for it.
      void directory.refresh({ signal }).catch(() => {})
      for await (const { type, entry } of events) await emit({ event: type, node: nodeView(entry, parts()) })
      return {}
    }
  }
}

export interface HeardNode {
  readonly advert: Signed<NodeAdvertisement>
  readonly via: string
  readonly receivedAt: number
}

export function nodeView(
  { advert: { body }, via, receivedAt }: HeardNode,
  { broker, clock }: Pick<Parts, 'broker' | 'clock'>
): NodeView {
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
    // Either clock may be behind the other.
    ageMs: Math.max(0, now - body.notBefore, now - receivedAt),
    rights: [...(body.rights ?? [])],
    ...(reliability === undefined ? {} : { reliability }),
    ...(accepts === undefined ? {} : { accepts }),
    ...(coordinate === undefined ? {} : { coordinate })
  }
}

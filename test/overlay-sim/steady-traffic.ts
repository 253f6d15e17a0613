/**
 * What a peer's link carries a minute in an overlay that has come to rest. What comes every few seconds is measured as
 * it happens; what comes every few minutes or hours (the DHT's upkeep, pings) is the mean of some peers' queries,
 * spread over its interval, for no window of a minute would hold its share of it.
 */
import { LIMITS } from '../../src/base/limits.ts'
import { COSTS } from './costs.ts'
import { kadId, type Walk } from './kademlia.ts'
import type { Member, Overlay } from './overlay.ts'
import type { Station } from './network.ts'

/** As in `libp2p-options.ts` and the directory. */
const PUT_MS = LIMITS.advertLifetimeMsMax / 2
const SELF_QUERY_MS = 30 * 60_000
const PROVIDE_MS = LIMITS.providerLifetimeMs / 3
const PING_MS = 300_000
/** What the nodes of `roles.ts` have in common, that their agents announce themselves under. */
const KEYS_PER_AGENT = 18
const SAMPLES = 40
const NAMED = 20
/** Beside those that are measured as they happen. */
const SPREAD = new Set(['dht', 'connections'])

/** Bytes a minute of each member, over `ms` of overlay time from now. */
export async function steadyTraffic(overlay: Overlay, ms: number): Promise<Map<Member, number>> {
  const measured = ({ station }: Member): number =>
    [...station.bytesFor].reduce((sum, [what, bytes]) => (SPREAD.has(what) ? sum : sum + bytes), 0)
  const before = new Map(overlay.members.map((member) => [member, measured(member)]))
  await overlay.pass(ms)
  const upkeep = upkeepOf(overlay)
  return new Map(
    overlay.members.map((member) => {
      const perMinute = ((measured(member) - (before.get(member) ?? 0)) * 60_000) / ms
      return [member, perMinute + upkeep.every + (member.role === 'agent' ? upkeep.agent : 0)]
    })
  )
}

/** Every answer is somebody's question, so each query counts twice: once where it is asked, once where answered. */
function upkeepOf(overlay: Overlay): { readonly every: number; readonly agent: number } {
  const { network } = overlay
  const live = network.stations.filter(({ host }) => host !== undefined)
  const stations = Array.from({ length: SAMPLES }, () => network.chance.pick(live))
  const query = (target: (station: Station) => number): number =>
    mean(stations.map((station) => asked(network.kademlia.walk(station, target(station), isThere))))
  const toAnywhere = (): number => kadId(network.chance.bytes(8))
  const own = query(({ kadId: id }) => id)
  const any = query(toAnywhere)
  const buckets = mean(stations.map((station) => network.kademlia.buckets(station)))
  const each = COSTS.dhtCall + NAMED * COSTS.dhtPeer
  const stored = NAMED * (COSTS.dhtCall + COSTS.dhtPeer)
  const put = any * each + stored + NAMED * 600
  const refresh = buckets * any * each
  const connections = Math.min(live.length - 1, LIMITS.idleConnectionsMax)
  // Where not all can stay connected, who is asked at random is connected to anew, and another is closed for it.
  const anew = live.length > LIMITS.idleConnectionsMax ? 2 * buckets * any * COSTS.connection : 0
  const spread = put / PUT_MS + (own * each) / SELF_QUERY_MS + (refresh + anew) / LIMITS.dhtRefreshMs
  const pings = (connections * 2 * COSTS.ping) / PING_MS
  const provided = (KEYS_PER_AGENT * (any * each + stored)) / PROVIDE_MS
  // Of what agents announce, everybody answers a part.
  const agents = overlay.ofRole('agent').length / live.length
  return { every: 60_000 * (2 * spread + pings + agents * provided), agent: 60_000 * provided }
}

function isThere({ host }: Station): boolean {
  return host !== undefined
}

function asked(walk: Walk<Station>): number {
  return walk.asked.length
}

function mean(samples: readonly number[]): number {
  return samples.reduce((sum, each) => sum + each, 0) / samples.length
}

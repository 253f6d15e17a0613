/**
 * Another peer's broker, asked as one asks one's own. What it says is a hint: an advertisement counts only when it holds
 * by itself and matches here as well, a member only where such an advertisement names it and its agent.
 */
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { within } from '../base/time-limit.ts'
import type { brokerProtocol, Plan, PlannedMember, Rejection, Want } from '../protocol/broker-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import { compileQuery } from '../query/query.ts'
import { advertisementObject, type Advertisement, type NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { byName, type FoundNode } from './finding.ts'

export interface RemoteBrokerComponents {
  readonly broker: Principal
  readonly call: Caller<typeof brokerProtocol.methods>
  readonly clock: Clock
  /** Told of each advert that holds. */
  readonly learn?: (bytes: Uint8Array) => void
}

const CALL_MS = 15_000

export class RemoteBroker {
  readonly #components: RemoteBrokerComponents
  readonly #callMs: number

  /** `callMs`: how long it may take to answer; default 15 s. */
  constructor(components: RemoteBrokerComponents, init: { readonly callMs?: number } = {}) {
    this.#components = components
    this.#callMs = init.callMs ?? CALL_MS
  }

  /**
   * The nodes that match by adverts that hold, by name. Throws `QUERY_INVALID`, `PROTOCOL_ERROR` when the broker sends
   * what its node never signed or more than there may be, `TIMEOUT`, and what calls throw.
   */
  async find(
    query: string | undefined,
    options: { readonly signal?: AbortSignal } = {}
  ): Promise<{ found: FoundNode[]; mismatches: [] }> {
    const compiled = query === undefined ? undefined : compileQuery(query)
    const { clock, call } = this.#components
    const newest = new Map<Principal, FoundNode>()
    let heard = 0
    await call('getAds', query === undefined ? {} : { query }, {
      signal: within(clock, this.#callMs, options.signal),
      onItem: ({ advert: bytes }) => {
        heard += 1
        if (heard > LIMITS.brokerAdvertsMax) throw this.#tooMuch('adverts')
        const advert = this.#open(bytes)
        const now = clock.now()
        if (!isNode(advert) || !isLive(advert.body, now)) return
        if (compiled !== undefined && !compiled.matches(advert.body)) return
        this.#components.learn?.(bytes)
        const { issuer, seq } = advert.body
        const before = newest.get(issuer)
        if (before !== undefined && before.advert.body.seq >= seq) return
        newest.set(issuer, { advert, via: 'broker', receivedAt: now })
      }
    })
    const found = [...newest.values()].sort((a, b) => byName(a.advert.body, b.advert.body))
    return { found, mismatches: [] }
  }

  /**
   * What the broker would make a slice of. Members that no advert stands for are none, and whether the slice could be
   * made is judged by those that are left; why others were passed over is the broker's word. Throws as `find`.
   */
  async plan(want: Want, options: { readonly signal?: AbortSignal } = {}): Promise<Plan> {
    const { found } = await this.find(want.query, options)
    const adverts = new Map(found.map(({ advert }) => [advert.body.issuer, advert.body]))
    const told = await this.#told(want, options)
    const members = new Map<Principal, PlannedMember>()
    const unproven: Rejection[] = []
    for (const member of told.members) {
      const advert = adverts.get(member.node)
      if (advert?.agents.includes(member.agent) === true)
        members.set(member.node, { ...member, name: advert.name })
      else unproven.push({ node: member.node, name: member.name, failed: [{ clause: UNPROVEN }] })
    }
    const had = members.size >= Math.max(1, want.minimum)
    const satisfiable = told.satisfiable && had
    const reason = had ? told.reason : `${members.size} of ${want.count} members could be had`
    return {
      satisfiable,
      ...(satisfiable || reason === undefined ? {} : { reason }),
      members: [...members.values()],
      rejections: [...unproven, ...told.rejections]
    }
  }

  async #told(want: Want, options: { readonly signal?: AbortSignal }): Promise<Plan> {
    const members: PlannedMember[] = []
    const rejections: Rejection[] = []
    const result = await this.#components.call(
      'plan',
      { want },
      {
        signal: within(this.#components.clock, this.#callMs, options.signal),
        onItem: ({ member, rejection }) => {
          if (member !== undefined) members.push(member)
          if (rejection !== undefined) rejections.push(rejection)
          if (members.length > want.count) throw this.#tooMuch('members')
          if (rejections.length > LIMITS.brokerRejectionsMax) throw this.#tooMuch('nodes passed over')
        }
      }
    )
    return { ...result, members, rejections }
  }

  /** Whoever passes on what its node never signed is not heard further. */
  #open(bytes: Uint8Array): Signed<Advertisement> {
    try {
      return advertisementObject.open(bytes)
    } catch (error) {
      const message = `the broker ${this.#components.broker} passed on an advertisement that is none`
      throw new SlicenetError('PROTOCOL_ERROR', message, { cause: error })
    }
  }

  #tooMuch(of: string): SlicenetError {
    return new SlicenetError('PROTOCOL_ERROR', `the broker ${this.#components.broker} sends too many ${of}`)
  }
}

const UNPROVEN = 'an advertisement of the node that names the agent'

function isNode(advert: Signed<Advertisement>): advert is Signed<NodeAdvertisement> {
  return advert.body.role === 'node'
}

function isLive({ notBefore, notAfter, leaving }: NodeAdvertisement, now: number): boolean {
  return (
    leaving !== true &&
    notAfter > now &&
    notBefore <= now + LIMITS.advertSkewMsMax &&
    notAfter - notBefore <= LIMITS.advertLifetimeMsMax
  )
}

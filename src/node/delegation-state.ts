/**
 * What a node has delegated to one agent, as it is kept: the delegation that the agent took, those that it may have
 * taken without the answer having come back, and the most that it was ever given and may still use.
 */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { ceilingOf } from '../ticket/fraud.ts'
import type { Chain } from '../ticket/chain.ts'
import { delegationObject, type Delegation } from '../ticket/delegation.ts'
import { resourcesSchema } from '../ticket/resource-schema.ts'
import { NO_RESOURCES, type Resources } from '../ticket/resources.ts'
import { timeSchema, type Signed } from '../ticket/signed-object.ts'
import { byteString, cborCodec } from '../wire/codec.ts'

export interface DelegationState {
  readonly taken?: Signed<Delegation>
  /** Signed since, oldest first; the last is offered now. */
  readonly offers: readonly Signed<Delegation>[]
  /** Of each resource the most in any delegation that is not over; see `over-delegated`. */
  readonly ceiling: Resources
  /** UTC ms at which the last of them is over. */
  readonly ceilingUntil: number
}

export const NOTHING_DELEGATED: DelegationState = { offers: [], ceiling: NO_RESOURCES, ceilingUntil: 0 }

/** An agent that never answers gets a new offer every half term; older ones than these are out of time. */
const OFFERS_MAX = 8

const objectBytes = byteString(1, LIMITS.objectBytesMax)
const codec = cborCodec(
  v.strictObject({
    taken: v.exactOptional(objectBytes),
    offers: v.pipe(v.array(objectBytes), v.maxLength(OFFERS_MAX)),
    ceiling: resourcesSchema,
    ceilingUntil: timeSchema
  }),
  { bytesMax: (OFFERS_MAX + 2) * LIMITS.objectBytesMax, depthMax: 4 }
)

export function encodeState({ taken, offers, ceiling, ceilingUntil }: DelegationState): Uint8Array {
  const bytes = offers.map((offer) => offer.bytes)
  return codec.encode({
    offers: bytes,
    ceiling,
    ceilingUntil,
    ...(taken === undefined ? {} : { taken: taken.bytes })
  })
}

export function decodeState(bytes: Uint8Array): DelegationState {
  const { taken, offers, ceiling, ceilingUntil } = codec.decode(bytes)
  const opened = offers.map((offer) => delegationObject.open(offer))
  const rest = { offers: opened, ceiling, ceilingUntil }
  return taken === undefined ? rest : { ...rest, taken: delegationObject.open(taken) }
}

/** With one more offer. `now` is UTC ms. */
export function withOffer(state: DelegationState, offer: Signed<Delegation>, now: number): DelegationState {
  return {
    ...state,
    offers: [...state.offers, offer].slice(-OFFERS_MAX),
    ceiling: ceilingOf([ceilingAt(state, now), offer.body.resources]),
    ceilingUntil: Math.max(state.ceilingUntil, offer.body.notAfter)
  }
}

/** As it is when the agent has taken `delegation`: earlier offers can no longer be taken. */
export function withTaken(state: DelegationState, delegation: Signed<Delegation>): DelegationState {
  const later = state.offers.filter(({ body }) => body.seq > delegation.body.seq)
  return { ...state, taken: delegation, offers: later }
}

export function ceilingAt({ ceiling, ceilingUntil }: DelegationState, now: number): Resources {
  return ceilingUntil > now ? ceiling : NO_RESOURCES
}

/**
 * Whether a chain rests on what the agent has now: its newest delegation, or a ticket under an earlier one that this one
 * counts. An offer that a ticket is cut from was taken, whether or not the answer came back.
 */
export function isCurrent({ taken, offers }: DelegationState, { delegation, tickets }: Chain): boolean {
  if (taken === undefined || delegation.body.seq >= taken.body.seq) return true
  const [first] = tickets
  return [taken, ...offers].some(({ body }) => first !== undefined && body.counts.includes(first.id))
}

/** What the directory decides inside libp2p's services: which records and messages pass, and whom to trust less. */
import type { Principal } from '../ticket/principal.ts'

export interface RecordRule {
  /** Throws when a DHT record must not be stored or believed. */
  validate(key: Uint8Array, value: Uint8Array): void
  /** The index of the best of several records that are valid each. */
  select(key: Uint8Array, values: readonly Uint8Array[]): number
}

export interface OverlayRules {
  /** By the first part of a record's key. */
  readonly records: Readonly<Record<string, RecordRule>>
  /** Whether a gossip message is worth looking at, before its contents are. */
  acceptsMessage(topic: string, data: Uint8Array): boolean
  /** Zero for peers that send what is valid, below it for others. */
  scoreOf(peer: Principal): number
  /** Where an advert says that a principal is. */
  addressesOf(principal: Principal): readonly string[]
}

export const NO_RULES: OverlayRules = {
  records: {},
  acceptsMessage: () => false,
  scoreOf: () => 0,
  addressesOf: () => []
}

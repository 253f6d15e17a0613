/**
 * Adverts as records of the DHT, `/slicenet-ad/<peer id>/<role>`: how a principal is found by its key alone. It costs
 * 20 to 100 messages an operation, so it is for rendezvous, never for every heartbeat.
 */
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { Patience } from '../base/time-limit.ts'
import { advertisementObject, type Advertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { advertKey, keyOfAdvert, type AdvertRole, type AdvertTable } from './advert-table.ts'
import type { OverlayDht } from './overlay.ts'
import type { RecordRule } from './overlay-rules.ts'

export const RECORD_NAMESPACE = 'slicenet-ad'
/** A lookup that has found something waits so long for something newer. */
const SETTLE_MS = 1500

function recordKey(key: string): Uint8Array {
  return Buffer.from(`/${RECORD_NAMESPACE}/${key}`, 'utf8')
}

export interface DhtRecordsComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly table: AdvertTable
}

/**
 * kad-dht asks the validator, never the selector, whether to store what it is sent: so the validator itself refuses
 * records older than the newest it has seen.
 */
export function advertRecordRule(table: AdvertTable): RecordRule {
  return {
    validate(key, value) {
      const { verdict, advert } = table.witness(value)
      if (advert === undefined || (verdict !== 'new' && verdict !== 'known')) {
        throw new Error(`refused: ${verdict}`)
      }
      if (Buffer.compare(key, recordKey(keyOfAdvert(advert))) !== 0) throw new Error('another key')
    },
    select(_key, values) {
      const seqs = values.map(seqOf)
      return seqs.indexOf(Math.max(...seqs))
    }
  }
}

function seqOf(value: Uint8Array): number {
  try {
    return advertisementObject.open(value).body.seq
  } catch {
    return -1
  }
}

/** Puts an advert of one's own; gives the number of peers that keep it. Ends by the signal at the latest. */
export async function putAdvert(
  dht: OverlayDht,
  advert: Signed<Advertisement>,
  options: { signal: AbortSignal }
): Promise<number> {
  let kept = 0
  try {
    for await (const _keeper of dht.put(recordKey(keyOfAdvert(advert)), advert.bytes, options)) kept += 1
  } catch (error) {
    // Some peers that keep it are enough.
    if (kept === 0) throw dhtError(error)
  }
  return kept
}

/**
 * Looks an advert up and puts what it finds into the table. Every answer of a peer counts as it comes: `get` itself
 * fails as soon as one peer serves an older record and refuses the newer.
 */
export async function lookupAdvert(
  components: DhtRecordsComponents,
  dht: OverlayDht,
  wanted: { readonly principal: Principal; readonly role: AdvertRole },
  options: { signal: AbortSignal }
): Promise<void> {
  const key = advertKey(wanted.principal, wanted.role)
  using patience = new Patience(components, SETTLE_MS, options.signal)
  try {
    for await (const value of dht.get(recordKey(key), { signal: patience.signal })) {
      // The record of another key under this one would be news all the same, but not what was asked for.
      components.table.offer(value, 'dht')
      if (components.table.get(key) !== undefined) patience.shorten()
    }
  } catch (error) {
    if (components.table.get(key) === undefined) throw dhtError(error)
    components.logger.debug('a lookup in the DHT ended early', { key, error })
  }
}

export function dhtError(error: unknown): SlicenetError {
  if (error instanceof SlicenetError) return error
  const why = error instanceof Error ? error.message : String(error)
  return new SlicenetError('TIMEOUT', `the DHT gave no answer: ${why}`, { cause: error })
}

/** Judges what a walk over the journal and the head mark say together: pure, so that every case can be tried. */
import type { HeadMarkState } from './head-mark.ts'
import type { JournalScan } from './journal-reader.ts'
import { sameHead } from './record.ts'

/**
 * - `none`
 * - `torn-tail`: bytes after the marked head that are no record: a write that a crash cut off. Never acknowledged, so
 *   nothing is lost; a start removes them by itself. Every other kind stops a start.
 * - `flipped-bit`: bytes are not what was written.
 * - `snapshot-damaged`: the snapshot that the journal begins at was altered or cut off, is missing, or is not the one
 *   that the journal names.
 * - `gap`: something is missing between two records.
 * - `lost-tail`: the journal ends before the marked head.
 * - `head-unreadable`: the head mark is missing or was altered, so a lost tail would not be noticed.
 * - `head-mismatch`: the journal is sound in itself but is not the one that was marked.
 */
export type DamageKind =
  | 'none'
  | 'torn-tail'
  | 'flipped-bit'
  | 'snapshot-damaged'
  | 'gap'
  | 'lost-tail'
  | 'head-unreadable'
  | 'head-mismatch'

export interface Damage {
  readonly kind: DamageKind
  /** What was found, one sentence without a full stop. */
  readonly message: string
}

const NONE: Damage = { kind: 'none', message: 'no damage' }

/** `tablesExist`: a store makes its tables last, so where they are, a head mark and a journal once were. */
export function judge(mark: HeadMarkState, scan: JournalScan, tablesExist: boolean): Damage {
  if (mark.kind === 'missing') {
    if (scan.segments.length === 0 && scan.base === undefined && !tablesExist) return NONE
    return { kind: 'head-unreadable', message: 'the head mark is missing' }
  }
  if (mark.kind === 'unreadable') {
    return { kind: 'head-unreadable', message: 'neither slot of the head mark can be read' }
  }
  const { base, head, stop } = scan
  if (base !== undefined && (base.fault !== undefined || base.named === 'otherwise')) {
    const message =
      base.fault ?? `the snapshot at record ${base.sequence} is not the one that the journal names`
    return { kind: 'snapshot-damaged', message }
  }
  if (head.sequence < mark.head.sequence) {
    const ends = `the journal is sound up to record ${head.sequence}, but record ${mark.head.sequence} was acknowledged`
    const message = stop === undefined ? ends : `${stop.message}; ${ends}`
    return { kind: stop === undefined ? 'lost-tail' : kindOfStop[stop.reason], message }
  }
  if (scan.watched === undefined || !sameHead(scan.watched.head, mark.head)) {
    return {
      kind: 'head-mismatch',
      message: `record ${mark.head.sequence} is not the one that was acknowledged under this number`
    }
  }
  // What a snapshot replaces goes only when the record that names it is marked.
  if (base?.named === 'no') {
    return {
      kind: 'snapshot-damaged',
      message: `no record names the snapshot at record ${base.sequence}, and what came before it is missing`
    }
  }
  // See `head-mark.ts`: only a crash after the journal was synced leaves a slot half-written.
  if (!mark.otherReadable && head.sequence === mark.head.sequence) {
    return {
      kind: 'head-unreadable',
      message: 'a slot of the head mark was altered, and perhaps the newer one'
    }
  }
  if (stop === undefined) return NONE
  // A new segment is begun only when the one before is marked to its end.
  if (stop.segment < scan.segments.length - 1) {
    return { kind: stop.reason === 'altered' ? 'flipped-bit' : 'gap', message: stop.message }
  }
  return { kind: 'torn-tail', message: `${stop.message}; it was never acknowledged` }
}

const kindOfStop = { incomplete: 'lost-tail', altered: 'flipped-bit', gap: 'gap' } as const

/** Whether a start must refuse the store. */
export function isFatal(damage: Damage): boolean {
  return damage.kind !== 'none' && damage.kind !== 'torn-tail'
}

/**
 * The pure part of daily budgets: how much of a day's bytes a vserver has used, and what it may send at while they run out.
 * A day is one of UTC: it needs no word of a lease, so that a renewal gives no second budget and a restart loses nothing.
 */

const DAY_MS = 86_400_000
/** From this part of its budget on a vserver is held to a pace at which the rest lasts until the day is over. */
const PACED_FROM = 0.8

/** Bytes that the kernel has counted, by the uplink's device. */
export type SentByUplink = Readonly<Record<string, number>>

/** What is known of one vserver. */
export interface EgressAccount {
  /** The link's number and what its classes had sent by the last readings: what the kernel counts since is new. */
  readonly index: number
  readonly counted: SentByUplink
  /** The day's number since 1970, and what was sent on it. */
  readonly day: number
  readonly sentBytes: number
  /** UTC milliseconds of the last reading. */
  readonly readAt: number
}

/** The account of who is seen for the first time; `counted`: what is not to be held against it. */
export function openAccount(index: number, counted: SentByUplink, now: number): EgressAccount {
  return { index, counted, day: dayOf(now), sentBytes: 0, readAt: now }
}

/**
 * After a reading of the kernel's counts, which begin at 0 for a link and for an uplink that were made anew. Of uplinks that are
 * away there is none.
 */
export function readAccount(
  account: EgressAccount,
  { index, ...reading }: Pick<EgressAccount, 'index' | 'counted'>,
  now: number
): EgressAccount {
  const before = index === account.index ? account.counted : {}
  const bytes = Object.entries(reading.counted).reduce((sum, [uplink, count]) => {
    const then = before[uplink] ?? 0
    return sum + (count >= then ? count - then : count)
  }, 0)
  const counted = { ...before, ...reading.counted }
  const today = dayOf(now)
  // A clock that is set back by less than a day begins none anew.
  if (today === account.day || today === account.day - 1) {
    return { index, counted, day: account.day, sentBytes: account.sentBytes + bytes, readAt: now }
  }
  // Of what was sent since a reading before midnight, what is today's nobody knows: the even part of it.
  const since = Math.max(0, now - account.readAt)
  const part = since === 0 ? 1 : Math.min(1, (now - today * DAY_MS) / since)
  return { index, counted, day: today, sentBytes: Math.floor(bytes * part), readAt: now }
}

export interface Budget {
  readonly budgetBytes: number
  /** Bits a second: the lease's own cap, and the least that is left to anybody. */
  readonly capBps: number
  readonly leastBps: number
  /** How long until the next look. */
  readonly intervalMs: number
}

export interface Pace {
  /** Bits a second. Absent: the lease's own cap. */
  readonly narrowedBps?: number
  /** Whether its holder should know: the day's budget is running out. */
  readonly isRunningOut: boolean
}

/** What a vserver may send at from now on. */
export function paceOf(account: EgressAccount, budget: Budget, now: number): Pace {
  const { budgetBytes, capBps, leastBps, intervalMs } = budget
  const secondsLeft = Math.max((account.day + 1) * DAY_MS - now, intervalMs) / 1000
  const left = Math.max(0, budgetBytes - account.sentBytes)
  const free = Math.floor(budgetBytes * PACED_FROM) - account.sentBytes
  const isRunningOut = free <= 0
  const evenBps = (left * 8) / secondsLeft
  // Until the next look nobody sends beyond where the pace begins, however fast the uplink is.
  const freeBps = isRunningOut ? 0 : (free * 8) / (intervalMs / 1000)
  const paceBps = Math.floor(Math.max(evenBps, freeBps, leastBps))
  return paceBps >= capBps ? { isRunningOut } : { isRunningOut, narrowedBps: paceBps }
}

function dayOf(now: number): number {
  return Math.floor(now / DAY_MS)
}

import test from 'ava'
import * as fc from 'fast-check'
import {
  openAccount,
  paceOf,
  readAccount,
  type Budget,
  type EgressAccount,
  type SentByUplink
} from '../../src/enforce/network/egress-budget.ts'

const DAY_MS = 86_400_000
const HOUR_MS = 3_600_000
const NOON = 20_000 * DAY_MS + 12 * HOUR_MS
const MEGABYTE = 1_000_000
const budget: Budget = {
  budgetBytes: 100 * MEGABYTE,
  capBps: 10_000_000,
  leastBps: 16_000,
  intervalMs: 5000
}
const by = (bytes: number): SentByUplink => ({ up0: bytes })
const sent = (sentBytes: number, at = NOON): EgressAccount => ({ ...openAccount(1, {}, at), sentBytes })

test('below 80 % of the budget the lease’s cap holds, and above it the even pace to the end of the day', (t) => {
  t.deepEqual(paceOf(sent(70 * MEGABYTE), budget, NOON), { isRunningOut: false })
  const twelveHours = 12 * 3600
  t.deepEqual(paceOf(sent(80 * MEGABYTE), budget, NOON), {
    isRunningOut: true,
    narrowedBps: Math.floor((20 * MEGABYTE * 8) / twelveHours) < 16_000 ? 16_000 : 0
  })
  const large = { ...budget, budgetBytes: 10_000 * MEGABYTE }
  t.deepEqual(paceOf(sent(9000 * MEGABYTE), large, NOON), {
    isRunningOut: true,
    narrowedBps: Math.floor((1000 * MEGABYTE * 8) / twelveHours)
  })
  t.deepEqual(paceOf(sent(12_000 * MEGABYTE), large, NOON), { isRunningOut: true, narrowedBps: 16_000 })
})

test('no bytes a day are a trickle from the beginning', (t) => {
  t.deepEqual(paceOf(sent(0), { ...budget, budgetBytes: 0 }, NOON), {
    isRunningOut: true,
    narrowedBps: 16_000
  })
})

test('a pace is never above the lease’s cap and never below the least', (t) => {
  fc.assert(
    fc.property(
      fc.nat(200 * MEGABYTE),
      fc.nat(DAY_MS - 1),
      fc.integer({ min: 16_000, max: 1e9 }),
      (sentBytes, into, capBps) => {
        const now = 20_000 * DAY_MS + into
        const { narrowedBps = capBps } = paceOf(sent(sentBytes, now), { ...budget, capBps }, now)
        return narrowedBps >= 16_000 && narrowedBps <= capBps
      }
    )
  )
  t.pass()
})

test('who sends all that it may uses no more than the budget, but for the trickle', (t) => {
  const anyBudget = fc.integer({ min: MEGABYTE, max: 1e11 })
  const anyCap = fc.integer({ min: 16_000, max: 10_000_000_000 })
  fc.assert(
    fc.property(anyBudget, anyCap, fc.integer({ min: 0, max: 23 }), (budgetBytes, capBps, hour) => {
      let account = openAccount(1, {}, 20_000 * DAY_MS + hour * HOUR_MS)
      const intervalMs = 60_000
      const end = 20_001 * DAY_MS
      let counted = 0
      for (let now = account.readAt; now < end; now += intervalMs) {
        account = readAccount(account, { index: 1, counted: by(counted) }, now)
        const { narrowedBps = capBps } = paceOf(account, { ...budget, budgetBytes, capBps, intervalMs }, now)
        counted += Math.floor((narrowedBps / 8) * (intervalMs / 1000))
      }
      const trickle = (16_000 / 8) * 86_400
      return counted <= Math.max(budgetBytes, trickle) + trickle
    }),
    { numRuns: 20 }
  )
  t.pass()
})

test('counts go on over restarts of the daemon, and begin at 0 with a link that is made anew', (t) => {
  let account = openAccount(3, by(1000), NOON)
  account = readAccount(account, { index: 3, counted: by(1500) }, NOON + 1000)
  t.is(account.sentBytes, 500)
  account = readAccount(account, { index: 3, counted: by(40) }, NOON + 2000)
  t.is(account.sentBytes, 540)
  account = readAccount(account, { index: 4, counted: by(5000) }, NOON + 3000)
  t.is(account.sentBytes, 5540)
})

test('each uplink’s counts go on by themselves, while it is away as well', (t) => {
  let account = openAccount(3, { up0: 1000, up1: 10 }, NOON)
  account = readAccount(account, { index: 3, counted: { up0: 1100, up1: 30 } }, NOON + 1000)
  t.is(account.sentBytes, 120)
  account = readAccount(account, { index: 3, counted: { up1: 40 } }, NOON + 2000)
  t.is(account.sentBytes, 130)
  // Back as a device that is made anew, or as it was.
  t.is(readAccount(account, { index: 3, counted: { up0: 5, up1: 40 } }, NOON + 3000).sentBytes, 135)
  t.is(readAccount(account, { index: 3, counted: { up0: 1105, up1: 40 } }, NOON + 3000).sentBytes, 135)
})

test('a new day begins with what was sent on it, as far as that is known', (t) => {
  const before = { ...openAccount(1, {}, NOON), sentBytes: 900, counted: by(900) }
  // Read twelve hours before midnight and four after it: a quarter of what was sent between.
  const after = readAccount(before, { index: 1, counted: by(1700) }, NOON + 16 * HOUR_MS)
  t.like(after, { day: before.day + 1, sentBytes: 200, counted: by(1700) })
})

test('a clock that is set back gives no second budget', (t) => {
  const before = { ...openAccount(1, {}, NOON), sentBytes: 900, counted: by(900) }
  const after = readAccount(before, { index: 1, counted: by(1000) }, NOON - 20 * HOUR_MS)
  t.like(after, { day: before.day, sentBytes: 1000 })
  // Far back, the time before was wrong.
  t.like(readAccount(before, { index: 1, counted: by(1000) }, NOON - 100 * DAY_MS), { day: before.day - 100 })
})

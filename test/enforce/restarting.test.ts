/** When launched programs that ended are started again. */
import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import type { RestartPolicy } from '../../src/enforce/enforcer.ts'
import type { ProgramState } from '../../src/enforce/program-runner.ts'
import { Restarting } from '../../src/enforce/restarting.ts'
import type { Launched, VserverRecord } from '../../src/enforce/vserver-records.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { vserverSpec } from './enforcer-contract.ts'

/** One vserver whose program runs for `runsMs` each time and then ends with `exitCode`. */
function oneProgram(init: {
  readonly restart: RestartPolicy
  readonly exitCode: number
  readonly runsMs: number
  readonly fails?: boolean
  /** Not even the first start was begun. */
  readonly isOnlyNoted?: boolean
}) {
  const clock = new ManualClock()
  const began = clock.now()
  const starts: number[] = []
  let startedAt = began
  const program = { argv: ['program'], env: {}, restart: init.restart }
  let launched: Launched = { program, restarts: 0, streak: 0 }
  const restarting = new Restarting({
    clock,
    logger: silentLogger,
    records: (): VserverRecord[] => [
      { spec: vserverSpec('image'), container: 'made-ahead', uidBase: 0, phase: 'made', pid: 1, launched }
    ],
    stateOf: async (): Promise<ProgramState> => {
      if (init.isOnlyNoted === true && starts.length === 0) return { state: 'none' }
      const exitedAt = startedAt + init.runsMs
      if (clock.now() < exitedAt) return { state: 'running', pid: 2 }
      return { state: 'exited', exit: { exitCode: init.exitCode, exitedAt }, startedAt }
    },
    relaunch: async (_id, next) => {
      starts.push((clock.now() - began) / 1000)
      if (init.fails === true) throw new Error('there is no such program any more')
      launched = next
      startedAt = clock.now()
    }
  })
  return { restarting, clock, starts, launched: () => launched }
}

test('a program that fails at once is started after 1, 2, 4 seconds and so on, at most a minute', async (t) => {
  const { restarting, clock, starts, launched } = oneProgram({
    restart: 'on-failure',
    exitCode: 1,
    runsMs: 0
  })
  await restarting.start()
  await clock.advance(5 * 60_000)
  t.deepEqual(starts, [1, 3, 7, 15, 31, 63, 123, 183, 243])
  t.is(launched().restarts, 9)
  await restarting.stop()
  await clock.advance(10 * 60_000)
  t.is(starts.length, 9)
})

test('who ran for long is started again after a second', async (t) => {
  const one = oneProgram({ restart: 'always', exitCode: 0, runsMs: 10 * 60_000 })
  await one.restarting.start()
  await one.clock.advance(60 * 60_000)
  t.deepEqual(one.starts, [601, 1202, 1803, 2404, 3005])
  await one.restarting.stop()
})

test("which ends are followed by a start is the policy's", async (t) => {
  const startsOf = async (restart: RestartPolicy, exitCode: number): Promise<number> => {
    const { restarting, clock, starts } = oneProgram({ restart, exitCode, runsMs: 0 })
    await restarting.start()
    await clock.advance(10_000)
    await restarting.stop()
    return starts.length
  }
  t.is(await startsOf('never', 1), 0)
  t.is(await startsOf('on-failure', 0), 0)
  t.true((await startsOf('on-failure', 1)) > 0)
  t.true((await startsOf('always', 0)) > 0)
})

test('what cannot be started is tried once a minute', async (t) => {
  const { restarting, clock, starts } = oneProgram({ restart: 'always', exitCode: 0, runsMs: 0, fails: true })
  await restarting.start()
  await clock.advance(130_000)
  t.deepEqual(starts, [1, 61, 121])
  await restarting.stop()
})

test('what was noted and never begun is started', async (t) => {
  const { restarting, clock, starts } = oneProgram({
    restart: 'on-failure',
    exitCode: 0,
    runsMs: 60_000,
    isOnlyNoted: true
  })
  await restarting.start()
  await clock.advance(30_000)
  t.deepEqual(starts, [1])
  await restarting.stop()
})

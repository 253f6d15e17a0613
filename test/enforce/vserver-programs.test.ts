/** What happens to the programs of one vserver when several want something of them at the same time. */
import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import type { ProgramState } from '../../src/enforce/program-runner.ts'
import { Turns } from '../../src/enforce/turns.ts'
import { VserverPrograms, type VserverProgramsComponents } from '../../src/enforce/vserver-programs.ts'
import type { VserverRecord } from '../../src/enforce/vserver-records.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { vserverSpec } from './enforcer-contract.ts'

test('a program that ended well while it was still being launched is not started again', async (t) => {
  const clock = new ManualClock()
  const spec = vserverSpec('image')
  let record: VserverRecord = { spec, container: spec.id, uidBase: 0, phase: 'made', pid: 1 }
  let state: ProgramState = { state: 'none' }
  let launches = 0
  let exitCode = 0
  let letGo = (): void => {}
  const components = {
    clock,
    logger: silentLogger,
    turns: new Turns({ atOnceMax: 8, callersMax: 8 }),
    records: {
      all: () => [record],
      get: () => record,
      require: () => record,
      put: async (next: VserverRecord) => void (record = next)
    },
    roots: { rootPath: () => '/' },
    cgroups: { isFrozen: async () => false, path: () => '/group' },
    maker: { requireRunning: async () => record, isRunning: async () => true, programDir: () => '/programs' },
    runner: {
      state: async () => state,
      launch: async () => {
        launches++
        await new Promise<void>((resolve) => (letGo = resolve))
        state = { state: 'exited', exit: { exitCode, exitedAt: clock.now() }, startedAt: clock.now() }
      }
    }
  }
  const programs = new VserverPrograms(components as unknown as VserverProgramsComponents, {
    openFilesMax: 1024
  })
  await programs.start()
  const program = { argv: ['/bin/sh'], env: {}, restart: 'on-failure' as const }
  const launch = async (): Promise<void> => {
    const launched = programs.launch(spec.id, program)
    // It is looked at meanwhile, when nothing runs yet.
    await clock.advance(1500)
    letGo()
    await launched
    await clock.advance(5000)
  }
  await launch()
  t.is(launches, 1)
  exitCode = 1
  await launch()
  t.is(launches, 3, 'one that failed is')
  letGo()
  await programs.stop()
})

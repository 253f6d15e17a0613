/**
 * The enforcer's tests, its contract among them, on a machine with cgroups v2 alone and one OCI runtime. They take minutes
 * where the processor is emulated: SLICENET_NIGHTLY=1 runs them.
 */
import { rm } from 'node:fs/promises'
import test from 'ava'
import { OCI_RUNTIMES } from '../../../src/enforce/oci-runtime.ts'
import { runSuite } from './suite.ts'
import { ownDirectory } from '../own-names.ts'

const DEADLINE_MS = 20 * 60_000
const SUITES = ['test/linux/oci-enforcer.test', 'test/linux/escape/escape.test']
/** Fewer would mean that a suite did not get far. */
const TESTS_MIN = 30
const isWanted = process.arch === 'x64' && process.env.SLICENET_NIGHTLY === '1'
const declare = isWanted ? test.serial : test.serial.skip

for (const runtime of OCI_RUNTIMES) {
  for (const file of SUITES) {
    declare(`${file} passes under cgroups v2 alone, with ${runtime}`, async (t) => {
      t.timeout(DEADLINE_MS + 60_000)
      const directory = await ownDirectory('vm')
      try {
        const result = await runSuite({ directory, runtime, files: [file], deadlineMs: DEADLINE_MS })
        t.log(result.machine?.runtime, `${result.passed.length} passed`)
        if (result.machine === undefined || result.failed.length > 0) t.log(result.console.slice(-4000))
        t.deepEqual(result.machine?.hierarchies, [{ directory: '/sys/fs/cgroup', controllers: [] }])
        t.true(result.machine?.runtime.startsWith(runtime))
        t.deepEqual(result.failed, [])
        t.true(result.passed.length >= TESTS_MIN, `${result.passed.length} passed`)
      } finally {
        await rm(directory, { recursive: true, force: true })
      }
    })
  }
}

/**
 * The tests of the node's network on a stock Debian kernel, which has fair queues and loads modules when it wants them. They
 * take most of an hour where the processor is emulated: SLICENET_NIGHTLY=1 runs them.
 */
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { findKernel } from './debian-packages.ts'
import { runSuite, type SuiteResult } from './suite.ts'
import { ownDirectory } from '../own-names.ts'

const DEADLINE_MS = 90 * 60_000
/** Of test/linux/net. */
const SUITES = [
  'fair-queues',
  'shaping',
  'node-network',
  'owned-ports',
  'lease-end',
  'destinations',
  'uplink',
  'flow-watch',
  'spoof'
] as const
/** Fewer would mean that a suite did not get far. */
const TESTS_MIN = 2
const LIBRARIES = '/usr/lib'
const isWanted = process.arch === 'x64' && process.env.SLICENET_NIGHTLY === '1'
const declare = isWanted ? test.serial : test.serial.skip

let result: SuiteResult

if (isWanted) {
  test.before(async (t) => {
    t.timeout(DEADLINE_MS + 120_000)
    const directory = await ownDirectory('vm')
    try {
      const { modules } = await findKernel()
      // The interpreter's own library, and the names that programs print instead of numbers.
      const python = (await readdir(LIBRARIES)).filter((name) => /^python3\.\d+$/.test(name))
      const names = ['/etc/protocols', '/etc/services', '/etc/iproute2']
      const files = [...names, ...python.map((name) => join(LIBRARIES, name))]
      result = await runSuite({
        directory,
        runtime: 'runc',
        files: SUITES.map((name) => `test/linux/net/${name}.test`),
        disk: {
          packages: ['@libp2p/crypto', '@libp2p/peer-id'],
          programs: ['python3', 'ping', 'tee'],
          files,
          modules
        },
        deadlineMs: DEADLINE_MS
      })
      t.log(result.machine?.runtime, `${result.passed.length} passed`)
      if (result.machine === undefined || result.failed.length > 0) t.log(result.console.slice(-4000))
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  })
}

for (const name of SUITES) {
  declare(`the tests of ${name} pass on a stock kernel, and none is left out`, (t) => {
    const of = (titles: readonly string[]): string[] =>
      titles.filter((title) => title.startsWith(`${name} › `))
    t.deepEqual(of(result.failed), [])
    const passed = of(result.passed)
    t.deepEqual(
      passed.filter((title) => title.includes('# SKIP')),
      []
    )
    t.true(passed.length >= TESTS_MIN, `${passed.length} passed`)
    t.log(`${passed.length} passed`)
  })
}

/**
 * The tests of the node's network on a stock Debian kernel, which has fair queues and loads what it lacks, with cgroups v2
 * alone. They take minutes where the processor is emulated: SLICENET_NIGHTLY=1 runs them.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { findKernel } from './debian-packages.ts'
import { runSuite, type SuiteResult } from './suite.ts'

const DEADLINE_MS = 40 * 60_000
/** Names in test/linux/net, and how many tests each has at least. */
const FILES: Readonly<Record<string, number>> = {
  'fair-queues': 2,
  'node-network': 5,
  'owned-ports': 5,
  shaping: 5,
  destinations: 4,
  'lease-end': 4,
  'flow-watch': 5,
  uplink: 4,
  spoof: 5
}
/** Python's own, and the names that programs print instead of numbers. */
const DISK = {
  programs: ['python3', 'ping', 'tee'],
  files: ['/usr/lib/python3.11', '/etc/protocols', '/etc/services', '/etc/iproute2']
}
const isWanted = process.arch === 'x64' && process.env.SLICENET_NIGHTLY === '1'
const declare = isWanted ? test.serial : test.serial.skip

let result: SuiteResult

if (isWanted) {
  test.before(async (t) => {
    t.timeout(DEADLINE_MS + 120_000)
    const directory = await mkdtemp(join(tmpdir(), 'slicenet-vm-'))
    try {
      const { modules } = await findKernel()
      const files = Object.keys(FILES).map((name) => `test/linux/net/${name}.test`)
      result = await runSuite({
        directory,
        runtime: 'runc',
        files,
        disk: { ...DISK, modules },
        deadlineMs: DEADLINE_MS
      })
      t.log(`${result.passed.length} passed`)
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  })
}

for (const [name, least] of Object.entries(FILES)) {
  declare(`the tests of ${name} pass on a stock kernel`, (t) => {
    const of = (titles: readonly string[]): string[] =>
      titles.filter((title) => title.startsWith(`${name} › `))
    const [passed, failed] = [of(result.passed), of(result.failed)]
    for (const title of passed) t.log(title)
    if (failed.length > 0) t.log(result.console.slice(-4000))
    t.deepEqual(failed, [])
    t.deepEqual(
      passed.filter((title) => title.includes('# SKIP')),
      []
    )
    t.true(passed.length >= least, `${passed.length} passed`)
  })
}

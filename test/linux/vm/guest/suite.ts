/**
 * Runs in a virtual machine: says as a line of JSON what the machine has, and then what ava says of test files, in the lines
 * of TAP.
 */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { start } from '../../../../src/base/host-program.ts'
import { findRuntime } from '../../../../src/daemon/runtime-probe.ts'
import { findHierarchies } from '../../../../src/enforce/cgroup.ts'
import type { GuestMachine } from '../suite.ts'

const hierarchies = findHierarchies(await readFile('/proc/self/mountinfo', 'utf8'))
const { name, version } = await findRuntime()
const machine: GuestMachine = { hierarchies, runtime: `${name} ${version}` }
process.stdout.write(`${JSON.stringify(machine)}\n`)
const args = ['node_modules/ava/entrypoints/cli.js', '--tap', '--concurrency=1', ...process.argv.slice(2)]
const ava = start(process.execPath, args, ['ignore', 'inherit', 'inherit'], {
  env: { TMPDIR: '/tmp', HOME: '/tmp', SLICENET_SPOOF_PACKETS: '500', SLICENET_TEST_PATIENCE: '5' }
})
await once(ava, 'exit')

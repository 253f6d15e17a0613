/** What a killed test left on the machine is found and removed, and nothing else. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { start } from '../../src/base/host-program.ts'
import { createDevnetNetwork } from '../../src/daemon/devnet-network.ts'
import { devnetLeftovers } from '../../src/daemon/devnet-leftovers.ts'
import { isAlive } from '../../src/enforce/process-list.ts'
import { vserverSpec } from '../enforce/enforcer-contract.ts'
import { sweepDeadRuns } from './dead-runs.ts'
import type { Abandoned } from './fixtures/abandoned.ts'
import { OciNode } from './oci-node.ts'
import { ownDirectory, ownerOf, ownersIn, ownName } from './own-names.ts'

const ABANDONED = fileURLToPath(new URL('fixtures/abandoned.ts', import.meta.url))
/** More than Linux ever gives to a process. */
const NOBODYS_PID = 9_999_999

/** Runs it until it has made everything, and kills it. */
async function abandon(): Promise<Abandoned> {
  const options = { env: { TMPDIR: tmpdir() } }
  const child = start(process.execPath, [ABANDONED], ['ignore', 'pipe', 'inherit'], options)
  const ended = once(child, 'exit')
  const [line] = (await Promise.race([
    once(createInterface({ input: child.stdout! }), 'line'),
    ended.then(() => {
      throw new Error('it ended before it had made everything')
    })
  ])) as [string]
  child.kill('SIGKILL')
  await ended
  return JSON.parse(line) as Abandoned
}

/** Kinds of things that are left, and programs that name its directories. */
async function remains({ nodeShort, lab, directories }: Abandoned): Promise<string[]> {
  const lists = [nodeShort, lab].map((name) => devnetLeftovers(name, { directories }))
  const kinds = (await Promise.all(lists)).flat().map(({ kind }) => kind)
  const programs: string[] = []
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const said = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (directories.some((directory) => said.includes(directory)))
      programs.push(basename(said.split('\0')[0]!))
  }
  const files = directories.filter((directory) => existsSync(directory)).map(() => 'directory')
  return [...new Set([...kinds, ...programs, ...files])].sort()
}

test.serial('what a killed test left is removed, and what a living one has is not', async (t) => {
  t.timeout(120_000)
  const node = await OciNode.start()
  const network = createDevnetNetwork({ name: ownName('alive'), hosts: ['one'] })
  try {
    await network.up()
    await node.enforcer.create(vserverSpec(node.image, { id: 'alive' }))
    await node.enforcer.launch('alive', { argv: ['sleep', '1000'], env: {} })
    const before = [await node.remains('alive'), await devnetLeftovers(ownName('alive'))]
    const abandoned = await abandon()
    const left = await remains(abandoned)
    for (const kind of ['cgroup', 'conmon', 'directory', 'loop-device', 'mount', 'namespace', 'process']) {
      t.true(left.includes(kind), `${kind}: ${left.join(' ')}`)
    }
    t.true(await isAlive(abandoned.standIn))

    // Two runs may begin at one time; whichever removes it.
    await Promise.all([sweepDeadRuns(), sweepDeadRuns()])
    t.deepEqual(await remains(abandoned), [])
    t.false(await isAlive(abandoned.standIn))
    t.deepEqual([await node.remains('alive'), await devnetLeftovers(ownName('alive'))], before)
    t.is((await node.enforcer.status('alive'))?.state, 'running')
  } finally {
    await network.down()
    await node.stop()
  }
})

test.serial(
  'only what is named as tests name things, after a process that is gone, is removed',
  async (t) => {
    const mine = await ownDirectory('keep')
    const users = join(tmpdir(), `slicenet-lab${NOBODYS_PID}-home`)
    const tests = join(tmpdir(), `slicenet-${ownName('gone').replace(/\d+$/, String(NOBODYS_PID))}-home`)
    try {
      await mkdir(users)
      await mkdir(tests)
      await sweepDeadRuns()
      t.deepEqual([mine, users, tests].map(existsSync), [true, true, false])
    } finally {
      for (const directory of [mine, users, tests]) await rm(directory, { recursive: true, force: true })
    }
  }
)

test('names tell whose they are, and those that users give tell nothing', (t) => {
  const owner = { name: ownName('x'), pid: process.pid }
  for (const component of [`slicenet-${owner.name}`, `slicenet-${owner.name}-a b`, `sn-${owner.name}-c3`]) {
    t.deepEqual(ownerOf(component), owner, component)
    t.deepEqual(ownersIn(`{"directory":"/tmp/${component}/file"}`), [owner])
  }
  for (const component of [
    'slicenet-lab42',
    'slicenet-demo-node1',
    'slicenet-zzt42',
    'slicenet-zztx',
    'slicenet-zztx-42',
    'slicenet-zztx42y',
    'slicenet-azztx42',
    'my-slicenet-zztx42',
    'zztx42'
  ]) {
    t.is(ownerOf(component), undefined, component)
    t.deepEqual(ownersIn(`/run/${component}/file`), [], component)
  }
  t.throws(() => ownName('a1'), { instanceOf: TypeError })
  t.regex(ownName('abcdef').replace(/\d+$/, '4194304'), /^[a-z0-9]{1,16}$/, 'for a devnet')
})

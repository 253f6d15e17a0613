/** What fails under a vserver that is being made, or under those that run: a clear error, and nothing left behind. */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import type { SlicenetError } from '../../src/base/errors.ts'
import { run } from '../../src/base/host-program.ts'
import { OciRuntime } from '../../src/enforce/oci-runtime.ts'
import { outputOf, SMALL, vserverSpec } from '../enforce/enforcer-contract.ts'
import { OciNode } from './oci-node.ts'

const GIBIBYTE = 1024 ** 3
let node: OciNode

test.beforeEach(async () => {
  node = await OciNode.start()
})

test.afterEach.always(async () => {
  await node?.stop()
})

async function sh(id: string, script: string): Promise<{ output: string; exitCode: number }> {
  const session = await node.enforcer.exec(id, { argv: ['sh', '-c', script], env: {} })
  await session.write(undefined)
  return outputOf(session)
}

async function hasRoom(work: () => Promise<void>): Promise<boolean> {
  return work().then(
    () => true,
    () => false
  )
}

test.serial('a runtime whose container ends between create and start leaves nothing', async (t) => {
  const spec = vserverSpec(node.image, { id: 'between' })
  // oxlint-disable-next-line typescript/unbound-method -- it is called with its runtime below.
  const start = OciRuntime.prototype.start
  OciRuntime.prototype.start = async function (id: string): Promise<void> {
    const made = await this.state(id)
    t.is(made?.status, 'created')
    process.kill(made!.pid, 'SIGKILL')
    while ((await this.state(id))?.status === 'created') await delay(5)
    await start.call(this, id)
  }
  try {
    const failed = { code: 'VSERVER_FAILED', message: /start failed: .*stopped/ }
    await t.throwsAsync<SlicenetError>(node.enforcer.create(spec), failed)
  } finally {
    OciRuntime.prototype.start = start
  }
  t.deepEqual(await node.enforcer.list(), [])
  for (const [kind, found] of Object.entries(await node.remains(spec.id))) t.deepEqual(found, [], kind)
  t.is((await node.enforcer.create(spec)).state, 'created')
})

test.serial(
  'without its loop device a node makes no vserver, says so, and goes on when it is there again',
  async (t) => {
    const { enforcer } = node
    const before = vserverSpec(node.image, { id: 'before' })
    await enforcer.create(before)
    await sh(before.id, 'echo kept > /file')
    const volume = join(node.directory, 'state/volume')
    await run('umount', ['--lazy', volume])
    const spec = vserverSpec(node.image, { id: 'after' })
    const gone = { code: 'VSERVER_FAILED', message: /the volume .* is not mounted any more/ }
    await t.throwsAsync<SlicenetError>(enforcer.create(spec), gone)
    for (const [kind, found] of Object.entries(await node.remains(spec.id))) t.deepEqual(found, [], kind)
    t.deepEqual(await readdir(volume), [])
    // What runs has its files still.
    t.is((await sh(before.id, 'cat /file')).output, 'kept\n')
    await node.restart()
    t.is((await node.enforcer.create(spec)).state, 'created')
    t.is((await sh(before.id, 'cat /file')).output, 'kept\n')
  }
)

test.serial('on a full disk what needs room is refused, and what runs and is ended is not', async (t) => {
  const { enforcer } = node
  const greedy = vserverSpec(node.image, { id: 'greedy', resources: { ...SMALL, diskBytes: 16 * GIBIBYTE } })
  const other = vserverSpec(node.image, { id: 'other' })
  await enforcer.create(greedy)
  await enforcer.create(other)
  await sh(greedy.id, 'n=0; while fallocate -l 64M /f$n; do n=$((n+1)); done; dd if=/dev/zero of=/rest bs=1M')
  const content = new Uint8Array(128 * 1024).fill(1)
  const upload = async (): Promise<void> => {
    for (let n = 0; n < 64; n++) await enforcer.upload(other.id, [{ path: `/f${n}`, content, mode: 0o644 }])
  }
  await t.throwsAsync<SlicenetError>(upload(), { code: 'QUOTA_EXCEEDED' })
  const late = vserverSpec(node.image, { id: 'late' })
  const full = { code: 'VSERVER_FAILED', message: /no space left/ }
  await t.throwsAsync<SlicenetError>(enforcer.create(late), full)
  for (const [kind, found] of Object.entries(await node.remains(late.id))) t.deepEqual(found, [], kind)
  t.is((await sh(other.id, 'echo runs')).output, 'runs\n')
  await enforcer.destroy(greedy.id)
  // The file system gives room back when it comes to it.
  for (let tries = 0; tries < 100 && !(await hasRoom(upload)); tries++) {
    await run('btrfs', ['filesystem', 'sync', join(node.directory, 'state/volume')])
    await delay(100)
  }
  await t.notThrowsAsync(upload())
  t.is((await enforcer.create(late)).state, 'created')
})

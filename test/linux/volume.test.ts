import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { run } from '../../src/base/host-program.ts'
import { silentLogger } from '../../src/base/log.ts'
import { isMountPoint } from '../../src/enforce/mount-table.ts'
import { Volume } from '../../src/enforce/volume.ts'
import { ownDirectory } from './own-names.ts'

const MIB = 1024 * 1024
const SIZE = 512 * MIB
let stateDirectory: string
let volumes: Volume[]

test.beforeEach(async () => {
  stateDirectory = await ownDirectory('v', 'a volume-')
  volumes = []
})

test.afterEach.always(async () => {
  for (const volume of volumes) await volume.close()
  await rm(stateDirectory, { recursive: true, force: true })
})

function makeVolume(sizeBytes = SIZE, logger = silentLogger): Volume {
  const volume = new Volume({ logger }, { stateDirectory, sizeBytes })
  volumes.push(volume)
  return volume
}

test.serial('a volume is found again while mounted and after it was unmounted', async (t) => {
  const first = makeVolume()
  await first.start()
  await writeFile(join(await first.create('a', 10 * MIB), 'file'), 'kept')
  const second = makeVolume()
  await second.start()
  t.true(second.quotas)
  t.deepEqual(await second.list(), ['a'])
  await second.close()
  t.false(await isMountPoint(join(stateDirectory, 'volume')))
  const third = makeVolume()
  await third.start()
  t.deepEqual(await third.list(), ['a'])
  await third.destroy('a')
  await third.destroy('a')
  t.deepEqual(await third.list(), [])
  t.is(await third.capacityBytes(), SIZE)
})

test.serial('closing lets go of the loop device', async (t) => {
  const volume = makeVolume()
  const loops = (): Promise<string> => run('losetup', ['--associated', join(stateDirectory, 'volume.img')])
  await volume.start()
  t.not(await loops(), '')
  await volume.close()
  await volume.close()
  // A mount namespace that was copied meanwhile holds the device for as long as it lives.
  for (let tries = 0; tries < 100 && (await loops()) !== ''; tries++) await delay(100)
  t.is(await loops(), '')
})

test.serial('a limit can be raised, and what is used is told', async (t) => {
  const volume = makeVolume()
  await volume.start()
  const path = await volume.create('a', 5 * MIB)
  const write = (): Promise<void> =>
    writeFile(join(path, 'file'), new Uint8Array(10 * MIB).fill(1), { flush: true })
  // Node has no name for EDQUOT.
  await t.throwsAsync(write(), { message: /-122/ })
  await volume.create('a', 50 * MIB)
  await t.notThrowsAsync(write())
  await run('sync', ['--file-system', path])
  t.true((await volume.usedBytes('a')) >= 10 * MIB)
})

test.serial('quota groups of what is gone are forgotten', async (t) => {
  const volume = makeVolume()
  await volume.start()
  for (let n = 0; n < 4; n++) {
    await volume.create(`v${n}`, MIB)
    await volume.destroy(`v${n}`)
  }
  const directory = join(stateDirectory, 'volume')
  // Wakes what clears up after subvolumes, which else sleeps for half a minute.
  await run('btrfs', ['filesystem', 'sync', directory])
  await run('btrfs', ['subvolume', 'sync', directory])
  await volume.sweepQuotas()
  t.notRegex(await run('btrfs', ['qgroup', 'show', directory]), /stale/)
})

test.serial(
  'where no file system can be made, a directory serves, and the log says what is lost',
  async (t) => {
    const said: string[] = []
    const logger = { ...silentLogger, error: (message: string) => void said.push(message) }
    // Too small for any file system.
    const volume = makeVolume(4096, logger)
    await volume.start()
    t.false(volume.quotas)
    t.regex(said.join('\n'), /limits .* NOT enforced/)
    await writeFile(join(await volume.create('a', 1), 'file'), new Uint8Array(MIB))
    t.true((await volume.usedBytes('a')) >= MIB)
    // Somebody inside went down further than a path may be long.
    const deeper = 'chdir shift or die $!; for (1 .. 50) { mkdir $ARGV[0]; chdir $ARGV[0] or die $! }'
    await run('perl', ['-e', deeper, volume.path('a'), 'd'.repeat(100)])
    await volume.destroy('a')
    t.deepEqual(await volume.list(), [])
  }
)

import { readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test from 'ava'
import { run } from '../../src/base/host-program.ts'
import { readCoreHandler } from '../../src/enforce/core-handler.ts'
import { KERNEL_PROBES } from '../../src/daemon/kernel-probes.ts'
import { ownDirectory } from './own-names.ts'

test('every kernel probe succeeds here, and the one of nft leaves no table behind', async (t) => {
  for (const { name, probe } of KERNEL_PROBES) t.is(typeof (await probe({})), 'string', name)
  t.false((await run('nft', ['list', 'tables'])).includes('slicenet-doctor'))
})

test('the program that crashes are handed to is read where the kernel has it', async (t) => {
  // The setting is the whole machine's, so another is only shown, and only to this process.
  const module = new URL('../../src/enforce/core-handler.ts', import.meta.url).href
  const script = `console.log(await (await import('${module}')).readCoreHandler())`
  const seenWith = async (pattern: string): Promise<string> => {
    const shown = 'mount --bind "$1" /proc/sys/kernel/core_pattern && exec "$2" --input-type=module -e "$3"'
    const file = join(await ownDirectory('core'), 'pattern')
    await writeFile(file, pattern)
    const args = ['--mount', 'sh', '-c', shown, 'sh', file, process.execPath, script]
    const seen = await run('unshare', args)
    await rm(dirname(file), { recursive: true })
    return seen.trim()
  }
  t.is(
    await seenWith('|/usr/lib/systemd/systemd-coredump %P %u\n'),
    '/usr/lib/systemd/systemd-coredump %P %u'
  )
  t.is(await seenWith('core\n'), 'undefined')
  const own = await readFile('/proc/sys/kernel/core_pattern', 'utf8')
  t.is(await readCoreHandler(), own.startsWith('|') ? own.slice(1).trim() : undefined)
})

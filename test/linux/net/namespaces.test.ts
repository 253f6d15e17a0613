import { once } from 'node:events'
import { readlink } from 'node:fs/promises'
import test from 'ava'
import { run, start } from '../../../src/base/host-program.ts'
import { inNamespace, processesIn } from '../../../src/enforce/network/namespaces.ts'
import { until } from './until.ts'

const nameOf = async (pid: number | 'self' = 'self'): Promise<string> =>
  readlink(`/proc/${pid}/ns/net`).catch(() => '')

test('a network namespace is found by its name, and is the same to the end, whatever becomes of its process', async (t) => {
  const child = start('unshare', ['--net', 'sleep', '60'], 'ignore')
  const pid = child.pid ?? 0
  t.teardown(() => child.kill('SIGKILL'))
  t.true(await until(async () => (await nameOf(pid)) !== (await nameOf())))
  const name = await nameOf(pid)
  const found = await processesIn(new Set([name, 'net:[1]']))
  t.deepEqual([...found], [[name, [pid]]])
  const shown = await inNamespace(name, [pid], async (path) => {
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
    return run('nsenter', [`--net=${path}`, 'readlink', '/proc/self/ns/net'])
  })
  t.is(shown?.trim(), name)
  const never = async (): Promise<never> => Promise.reject(new Error('nobody has it'))
  t.is(await inNamespace(name, [pid], never), undefined)
  // An id that is another's by now leads nowhere else.
  t.is(await inNamespace(name, [process.pid], never), undefined)
})

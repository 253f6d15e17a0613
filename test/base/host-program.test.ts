/** Host programs are run with what they are given and nothing else, whatever they do with it. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { closeSync, openSync, readdirSync } from 'node:fs'
import test from 'ava'
import { begin, HOST_PROGRAM_CHANNEL, run, runAnyway } from '../../src/base/host-program.ts'

test('what a program prints and its exit code are given', async (t) => {
  const result = await runAnyway('sh', ['-c', 'cat; echo no >&2; exit 3'], { input: 'yes' })
  t.deepEqual(result, { exitCode: 3, stdout: 'yes', stderr: 'no\n' })
})

test('more than fits between two processes is given whole, both ways', async (t) => {
  const input = 'x'.repeat(4 * 1024 * 1024)
  t.is(await run('cat', [], { input }), input)
})

test('a program that does not read its input is judged by its exit code', async (t) => {
  t.is(await run('true', [], { input: 'x'.repeat(4 * 1024 * 1024) }), '')
})

test('a program has the environment, the directory and the arguments that it is given, and no more', async (t) => {
  const options = { env: { WORD: 'a b' }, cwd: '/usr' }
  t.is(
    await run('sh', ['-c', 'env | sort; pwd; echo "$1"', 'sh', '; exit 1'], options),
    'LC_ALL=C.UTF-8\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/usr\nWORD=a b\n/usr\n; exit 1\n'
  )
})

test('a program has none of our files, and no signal blocked or ignored', async (t) => {
  const file = openSync(import.meta.filename, 'r')
  t.notRegex(await run('ls', ['-l', '/proc/self/fd']), /host-program/)
  closeSync(file)
  // Node ignores SIGPIPE. The two that are glibc's own are never a program's.
  const status = await run('grep', ['-hE', '^Sig(Blk|Ign)', '/proc/self/status'])
  for (const [, mask] of status.matchAll(/:\t([0-9a-f]+)/g)) t.is(BigInt(`0x${mask}`) & ~GLIBC_SIGNALS, 0n)
})
const GLIBC_SIGNALS = 0b11n << 31n

test('a limit of open files is for the program alone', async (t) => {
  const soft = async (options = {}): Promise<string> => run('sh', ['-c', 'ulimit -Sn'], options)
  t.is(await soft({ openFiles: 64 }), '64\n')
  t.not(await soft(), '64\n')
})

test('a program that is not there is missing, one that cannot be run has failed', async (t) => {
  const missing = { code: 'HOST_PROGRAM_MISSING' }
  await t.throwsAsync(run('slicenet-no-such-program', []), missing)
  await t.throwsAsync(run('/usr/bin/slicenet-no-such-program', []), missing)
  await t.throwsAsync(run('/etc/passwd', []), { message: /EACCES/ })
})

test('who keeps a program’s output open is not waited for beyond its deadline', async (t) => {
  const left = 'echo said; sleep 5 & echo $! >&2; exit 3'
  const { exitCode, stdout, stderr } = await runAnyway('sh', ['-c', left], { deadlineMs: 100 })
  t.deepEqual([exitCode, stdout], [3, 'said\n'])
  // It still runs, or this would show nothing.
  process.kill(Number(stderr), 'SIGKILL')
})

test('a program that takes too long, is given up, or says too much is killed', async (t) => {
  const killed = { code: 'HOST_PROGRAM_FAILED', message: /SIGKILL/ }
  await t.throwsAsync(run('sleep', ['60'], { deadlineMs: 50 }), killed)
  const reason = new Error('enough')
  await t.throwsAsync(run('sleep', ['60'], { signal: AbortSignal.abort(reason) }), { is: reason })
  const controller = new AbortController()
  const given = run('sleep', ['60'], { signal: controller.signal })
  controller.abort(reason)
  await t.throwsAsync(given, { is: reason })
  await t.throwsAsync(run('cat', ['/dev/zero']), { code: 'HOST_PROGRAM_FAILED', message: /printed more/ })
})

test('a silent program is over when it ends, whoever it leaves behind', async (t) => {
  const left = await runAnyway('sh', ['-c', 'sleep 1 & exit 5'], { silent: true })
  t.deepEqual(left, { exitCode: 5, stdout: '', stderr: '' })
})

test('a signal goes to a program that runs, and to nobody after', async (t) => {
  const child = begin('sleep', ['60'], ['ignore', 'ignore', 'ignore'])
  t.false(child.hasEnded())
  child.kill('SIGTERM')
  t.deepEqual(await child.ended, { exitCode: undefined, signal: 'SIGTERM' })
  t.true(child.hasEnded())
  t.notThrows(() => child.kill('SIGKILL'))
})

test.serial('a program that ends leaves no descriptor open, though nobody ended its input', async (t) => {
  const before = readdirSync('/proc/self/fd').length
  for (let round = 0; round < 8; round++) {
    const child = begin('true', [], ['pipe', 'pipe', 'pipe'])
    for (const stream of child.streams) stream?.resume()
    await child.ended
  }
  await new Promise((resolve) => setTimeout(resolve, 50))
  t.true(readdirSync('/proc/self/fd').length <= before + 1)
})

test('a child that has ended stays so, whoever gets its number', async (t) => {
  const child = begin('true', [], ['ignore', 'ignore', 'ignore'])
  await child.ended
  t.true(child.hasEnded())
})

test.serial('many programs at once end each for itself, and leave no descriptor open', async (t) => {
  const before = readdirSync('/proc/self/fd').length
  const codes = Array.from({ length: 64 }, (_, index) => index)
  const ended = await Promise.all(codes.map(async (code) => runAnyway('sh', ['-c', `exit ${code}`])))
  t.deepEqual(
    ended.map(({ exitCode }) => exitCode),
    codes
  )
  await new Promise(setImmediate)
  t.true(readdirSync('/proc/self/fd').length <= before + 1)
})

test('whoever watches is told of a beginning, and of an end before who waits for it', async (t) => {
  const told: string[] = []
  const watch = (message: unknown): void => {
    const { program, args, moment } = message as { program: string; args: string[]; moment: string }
    if (program === 'printf') told.push(`${args[0]} ${moment}`)
  }
  subscribe(HOST_PROGRAM_CHANNEL, watch)
  const done = run('printf', ['word']).then(() => told.push('gone on'))
  t.deepEqual(told, ['word begun'])
  await done
  unsubscribe(HOST_PROGRAM_CHANNEL, watch)
  t.deepEqual(told, ['word begun', 'word ended', 'gone on'])
})

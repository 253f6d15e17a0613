import test from 'ava'
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { serveControl } from '../daemon/control-fixture.ts'

const run = promisify(execFile)
const project = fileURLToPath(new URL('../..', import.meta.url))
const PINNED = `node_modules/node-linux-${process.arch}/bin/node`

/** What stands for the rest of the program: it says what it runs on and does what it is told. */
const STAND_IN = `
export async function runProcess() {
  const [what, argument] = process.argv.slice(2)
  console.log(process.versions.node, what)
  if (what === 'exit') process.exit(Number(argument))
  if (what === 'die') process.kill(process.pid, argument)
  if (what === 'wait') {
    process.on(argument, () => process.exit(7))
    console.log('ready')
    setInterval(() => {}, 1000)
  }
  if (what === 'cat') process.stdin.pipe(process.stdout)
}
`

/** Makes a real, new Node.js look old to the program that it runs first, where the machine has no old one. */
const PRETEND = `data:text/javascript,${encodeURIComponent(
  "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2' } })"
)}`

interface Scene extends AsyncDisposable {
  readonly main: string
  /** Command words of an old Node.js. */
  readonly old: readonly [string, ...string[]]
}

async function scene(init: { readonly hasPinned: boolean }): Promise<Scene> {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-entry-'))
  const tsc = join(project, 'node_modules/typescript/bin/tsc')
  await run(process.execPath, [
    tsc,
    '-p',
    join(project, 'tsconfig.build.json'),
    '--outDir',
    join(directory, 'dist')
  ])
  const main = join(directory, 'dist/cli/main.js')
  await writeFile(join(directory, 'package.json'), '{"type":"module"}')
  await writeFile(join(directory, 'dist/cli/process.js'), STAND_IN)
  if (init.hasPinned) {
    await mkdir(join(directory, PINNED, '..'), { recursive: true })
    await symlink(join(project, PINNED), join(directory, PINNED))
  }
  return {
    main,
    old: await oldNode(),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true })
  }
}

async function oldNode(): Promise<readonly [string, ...string[]]> {
  for (const path of ['/usr/bin/node', '/usr/local/bin/node']) {
    const isThere = await access(path).then(
      () => true,
      () => false
    )
    if (!isThere) continue
    const { stdout } = await run(path, ['--version'])
    if (Number(/^v(\d+)/.exec(stdout)?.[1]) < 22) return [path]
  }
  return [process.execPath, '--import', PRETEND]
}

async function finish(
  child: ChildProcess
): Promise<{ code: number | null; signal: string | null; out: string }> {
  let out = ''
  child.stdout?.on('data', (chunk: Buffer) => (out += chunk.toString()))
  child.stderr?.on('data', (chunk: Buffer) => (out += chunk.toString()))
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null]
  return { code, signal, out }
}

function start({ old: [node, ...flags], main }: Scene, ...argv: string[]): ChildProcess {
  return spawn(node, [...flags, main, ...argv], { env: { PATH: '/usr/bin:/bin' } })
}

test('an old Node.js without a pinned one beside it is NODE_TOO_OLD, for people and for programs', async (t) => {
  await using without = await scene({ hasPinned: false })
  const human = await finish(start(without, 'find'))
  t.is(human.code, 1)
  t.regex(
    human.out,
    /^error: slicenet needs Node\.js 22\.20 or later; this is \S+, .*\n {2}code: NODE_TOO_OLD\n {2}hint: /
  )
  const program = await finish(start(without, 'find', '--json'))
  t.is(program.code, 1)
  t.like(JSON.parse(program.out), { schema: 1, error: { code: 'NODE_TOO_OLD', retryable: false } })
  t.regex((await finish(start(without, 'exec', '--', '--json'))).out, /^error: /)
})

test('an old Node.js hands over to the pinned one, with words, streams, exit code and signals', async (t) => {
  await using pinned = await scene({ hasPinned: true })
  const exited = await finish(start(pinned, 'exit', '42'))
  t.is(exited.code, 42)
  t.is(exited.out, `${process.versions.node} exit\n`)
  t.is((await finish(start(pinned, 'die', 'SIGKILL'))).signal, 'SIGKILL')
  t.is((await finish(start(pinned, 'die', 'SIGTERM'))).signal, 'SIGTERM')
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    const child = start(pinned, 'wait', signal)
    const finished = finish(child)
    await ready(child)
    child.kill(signal)
    t.is((await finished).code, 7, signal)
  }
  const cat = start(pinned, 'cat')
  const copied = finish(cat)
  cat.stdin?.end('hello')
  t.regex((await copied).out, /hello$/)
})

async function ready(child: ChildProcess): Promise<void> {
  let said = ''
  while (!said.includes('ready')) {
    const [chunk] = (await once(child.stdout!, 'data')) as [Buffer]
    said += chunk.toString()
  }
}

test('the program as a process: SIGINT is 130, SIGTERM 143, and the daemon learns of both', async (t) => {
  for (const [signal, exitCode] of [
    ['SIGINT', 130],
    ['SIGTERM', 143]
  ] as const) {
    const began = Promise.withResolvers<void>()
    const aborted = Promise.withResolvers<void>()
    await using control = await serveControl({
      async find(_, call) {
        began.resolve()
        await once(call.signal, 'abort')
        aborted.resolve()
        return {}
      }
    })
    const child = spawn(process.execPath, [join(project, 'src/cli/main.ts'), 'find', '--json'], {
      env: { PATH: '/usr/bin:/bin', SLICENET_HOME: control.directory }
    })
    const finished = finish(child)
    await began.promise
    child.kill(signal)
    const { code, out } = await finished
    t.is(code, exitCode)
    t.like(JSON.parse(out), { schema: 1, error: { code: 'INTERRUPTED' } })
    await aborted.promise
  }
})

test('a reader that has seen enough ends the program quietly', async (t) => {
  await using control = await serveControl({ ...echoForEver() })
  const child = spawn(
    process.execPath,
    [join(project, 'src/cli/main.ts'), 'slice', 'logs', 'mesh', '--follow', '--json'],
    { env: { PATH: '/usr/bin:/bin', SLICENET_HOME: control.directory } }
  )
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  await once(child.stdout, 'data')
  child.stdout.destroy()
  const [code] = (await once(child, 'exit')) as [number]
  t.is(code, 141)
  t.is(said, '')
})

function echoForEver(): Parameters<typeof serveControl>[0] {
  return {
    sliceList: async () => ({
      slices: [{ name: 'mesh', state: 'active', count: 1, createdAt: 0, renew: false, members: [] }]
    }),
    async sliceLogs(_, call) {
      const item = {
        node: '12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5',
        nodeName: 'node1',
        stream: 'stdout' as const,
        time: 0,
        bytes: Buffer.from('again\n')
      }
      for (let i = 0; i < 100_000 && !call.signal.aborted; i++) await call.emit(item)
      return {}
    }
  }
}

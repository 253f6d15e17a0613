import test from 'ava'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { runDaemon } from '../../src/daemon/daemon.ts'
import { readEnvironment } from '../../src/daemon/environment.ts'
import { createKey } from '../../src/daemon/key-file.ts'
import { connect } from '../../src/index.ts'
import { startOverlayNode, type OverlayNode } from '../sdk/fixtures/overlay-node.ts'

const run = promisify(execFile)
const PROJECT = fileURLToPath(new URL('../..', import.meta.url))
const PLACEHOLDER = '/dns4/boot.example.org/tcp/4001/p2p/12D3KooWEXAMPLE'

interface Example {
  readonly title: string
  readonly program: string
  readonly output: string
}

/** Each block of TypeScript with the block of text that follows it: what it prints. */
async function examples(): Promise<Example[]> {
  const page = await readFile(join(PROJECT, 'docs/sdk.md'), 'utf8')
  return page.split(/^## /m).flatMap((section) => {
    const blocks = section.matchAll(/^```ts\n(.*?)^```\n\n```text\n(.*?)^```$/gms)
    const title = section.slice(0, section.indexOf('\n'))
    return [...blocks].map(([, program = '', output = '']) => ({ title, program, output }))
  })
}

test('every example of docs/sdk.md says what it prints', async (t) => {
  const page = await readFile(join(PROJECT, 'docs/sdk.md'), 'utf8')
  const found = await examples()
  t.is(found.length, page.split('```ts\n').length - 1)
  t.true(found.length >= 8)
})

/** A directory from which the examples import `slicenet`, which stands for the sources. */
async function workshop(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-docs-'))
  const slicenet = join(directory, 'node_modules/slicenet')
  await mkdir(slicenet, { recursive: true })
  const index = join(PROJECT, 'src/index.ts')
  await writeFile(join(slicenet, 'package.json'), '{"type":"module","exports":"./index.js"}')
  await writeFile(join(slicenet, 'index.js'), `export * from ${JSON.stringify(index)}\n`)
  await writeFile(join(slicenet, 'index.d.ts'), `export * from ${JSON.stringify(index)}\n`)
  await symlink(join(PROJECT, 'node_modules/@types'), join(directory, 'node_modules/@types'))
  await writeFile(join(directory, 'package.json'), '{"type":"module"}')
  const compilerOptions = { allowImportingTsExtensions: true, rewriteRelativeImportExtensions: false }
  const config = { extends: join(PROJECT, 'tsconfig.json'), include: ['*.ts'], compilerOptions }
  await writeFile(join(directory, 'tsconfig.json'), JSON.stringify(config))
  return directory
}

/** Three nodes, each its own agent, and the daemon of a researcher who knows them. */
async function startOverlay(home: string): Promise<{ readonly bootstrap: string; stop(): Promise<void> }> {
  const nodes: OverlayNode[] = []
  for (const [name, region] of [
    ['paris', 'eu'],
    ['vienna', 'eu'],
    ['boston', 'us']
  ] as const) {
    nodes.push(await startOverlayNode({ name, region, bootstrap: nodes.map(({ address }) => address) }))
  }
  const environment = readEnvironment({ variables: { SLICENET_HOME: home, SLICENET_LOG: 'error' } })
  await createKey(environment.keyFile)
  const bootstrap = nodes.map(({ address }) => address)
  await writeFile(
    environment.configFile,
    JSON.stringify({ name: 'researcher', listen: ['/ip4/127.0.0.1/tcp/0'], bootstrap })
  )
  const ending = new AbortController()
  const ready = Promise.withResolvers<void>()
  const daemon = runDaemon({ environment, signal: ending.signal, onReady: () => ready.resolve() })
  await Promise.race([ready.promise, daemon])
  return {
    bootstrap: bootstrap[0] ?? '',
    async stop() {
      ending.abort(new Error('the test is over'))
      await daemon
      await Promise.all(nodes.map((node) => node.stop()))
    }
  }
}

/** Adverts take a moment. */
async function allAreKnown(socketPath: string): Promise<void> {
  await using client = await connect({ socketPath })
  const known = new Set<string>()
  for await (const { node } of client.discover()) if (known.add(node.name).size === 3) return
}

test('every example of docs/sdk.md compiles, runs and prints what it says', async (t) => {
  const directory = await workshop()
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  const home = join(directory, 'home')
  await mkdir(home, { mode: 0o700 })
  const overlay = await startOverlay(home)
  t.teardown(() => overlay.stop())
  await allAreKnown(join(home, 'control.sock'))

  const files: { readonly file: string; readonly example: Example }[] = []
  for (const [index, example] of (await examples()).entries()) {
    const file = join(directory, `example${index}.ts`)
    await writeFile(file, example.program.replace(PLACEHOLDER, overlay.bootstrap))
    files.push({ file, example })
  }
  await t.notThrowsAsync(
    run(process.execPath, [join(PROJECT, 'node_modules/typescript/bin/tsc'), '-p', directory])
  )
  for (const { file, example } of files) {
    const options = {
      cwd: directory,
      timeout: 60_000,
      env: { SLICENET_HOME: home, PATH: process.env['PATH'] }
    }
    const { stdout } = await run(process.execPath, [file], options)
    t.is(stdout, example.output, example.title)
  }
})

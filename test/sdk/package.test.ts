import test from 'ava'
import { execFile } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { startOverlayNode } from './fixtures/overlay-node.ts'

const run = promisify(execFile)
const project = fileURLToPath(new URL('../..', import.meta.url))

/** What is in the package, and a program that lies in it, so that `slicenet` is the package itself. */
const PROGRAM = `
import { connect, SlicenetError } from 'slicenet'
const [stateDirectory, bootstrap] = process.argv.slice(2)
try {
  await connect({ socketPath: '/nonexistent/control.sock' })
} catch (error) {
  console.log(error instanceof SlicenetError, error.code)
}
const client = await connect({ embedded: { stateDirectory, bootstrap: [bootstrap] } })
for await (const { type, node } of client.discover()) {
  console.log(type, node.name)
  break
}
await client.close()
`

/** What TypeScript sees of the package. */
const TYPED = `
import { connect, type NodeEvent, type SliceEvent, type SliceHandle } from 'slicenet'
const client = await connect({ embedded: true })
export async function first(): Promise<NodeEvent['type'] | undefined> {
  for await (const { type } of client.discover('true', { bufferMax: 8 })) return type
}
export function ended(slice: SliceHandle): Promise<(SliceEvent & { type: 'end' })['reason']> {
  return new Promise((resolve) => slice.on('end', ({ reason }) => resolve(reason)))
}
// @ts-expect-error -- no such event.
export const none = (slice: SliceHandle): (() => void) => slice.on('nothing', () => {})
`

test('the built package works in plain JavaScript and has its types', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-package-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  const tsc = join(project, 'node_modules/typescript/bin/tsc')
  const compile = async (...argv: string[]): Promise<unknown> => run(process.execPath, [tsc, ...argv])
  await compile('-p', join(project, 'tsconfig.build.json'), '--outDir', join(directory, 'dist'))
  const { files } = JSON.parse(await readFile(join(project, 'package.json'), 'utf8')) as { files: string[] }
  for (const name of ['package.json', ...files.filter((name) => name === 'bootstrap')]) {
    await cp(join(project, name), join(directory, name), { recursive: true })
  }
  await symlink(join(project, 'node_modules'), join(directory, 'node_modules'))
  await writeFile(join(directory, 'program.js'), PROGRAM)
  const typed = join(directory, 'typed.ts')
  await writeFile(typed, TYPED)

  await using node = await startOverlayNode()
  const argv = ['--no-experimental-strip-types', join(directory, 'program.js'), join(directory, 'state')]
  const { stdout } = await run(process.execPath, [...argv, node.address], { cwd: directory })
  t.deepEqual(stdout.trim().split('\n'), ['true DAEMON_UNREACHABLE', 'match n0'])

  const options = ['--strict', '--noEmit', '--module', 'nodenext', '--target', 'esnext', '--types', 'node']
  await t.notThrowsAsync(compile(...options, '--skipLibCheck', '--ignoreConfig', typed))
})

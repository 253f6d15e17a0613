#!/usr/bin/env node
/**
 * The entry point: makes sure of the Node.js version before anything is loaded that needs it, so that an old one gives
 * a clear error instead of a syntax error somewhere inside. It imports nothing of slicenet's until then, and so spawns
 * and writes by itself.
 */
import { spawn } from 'node:child_process'
import { existsSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const NODE_MIN = [22, 20] as const
const NODE_MIN_TEXT = NODE_MIN.join('.')
const FORWARDED = ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const

function isNewEnough(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1])
}

/** The Node.js that is installed with slicenet as an optional dependency, beside it or above it. */
function findPinnedNode(): string | undefined {
  const packageName = `node-linux-${process.arch}`
  let directory = dirname(fileURLToPath(import.meta.url))
  for (;;) {
    const candidate = join(directory, 'node_modules', packageName, 'bin', 'node')
    // This very program being too old, starting it again would never end.
    if (existsSync(candidate) && realpathSync(candidate) !== process.execPath) return candidate
    const parent = dirname(directory)
    if (parent === directory) return undefined
    directory = parent
  }
}

/** Runs this program again on another Node.js and ends as it ends. */
function runOn(node: string): void {
  const child = spawn(node, process.argv.slice(1), { stdio: 'inherit' })
  for (const signal of FORWARDED) {
    process.on(signal, () => {
      // A terminal sends Ctrl-C and Ctrl-\ to the child as well, which must not see them twice.
      const isFromTerminal = process.stdin.isTTY && (signal === 'SIGINT' || signal === 'SIGQUIT')
      if (!isFromTerminal) child.kill(signal)
    })
  }
  child.on('error', (error) => tooOld(`and ${node} cannot be run (${error.message})`))
  child.on('exit', (code, signal) => {
    if (signal === null) {
      process.exitCode = code ?? 1
      return
    }
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
  })
}

function tooOld(detail: string): void {
  const message = `slicenet needs Node.js ${NODE_MIN_TEXT} or later; this is ${process.versions.node}, ${detail}`
  const hint = `install Node.js ${NODE_MIN_TEXT} or later, or install slicenet together with its optional dependencies`
  const end = process.argv.indexOf('--')
  const isJson = process.argv.slice(2, end === -1 ? undefined : end).includes('--json')
  if (isJson) {
    const error = { code: 'NODE_TOO_OLD', message, hint, retryable: false }
    process.stdout.write(`${JSON.stringify({ schema: 1, error })}\n`)
  } else {
    process.stderr.write(`error: ${message}\n  code: NODE_TOO_OLD\n  hint: ${hint}\n`)
  }
  process.exitCode = 1
}

if (isNewEnough(process.versions.node)) {
  const { useCompileCache } = await import('./compile-cache.ts')
  useCompileCache()
  const { runProcess } = await import('./process.ts')
  await runProcess()
} else {
  const node = findPinnedNode()
  if (node === undefined) tooOld('and none came with slicenet')
  else runOn(node)
}

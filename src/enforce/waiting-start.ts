/**
 * A program's start made ahead: a shell of slicenet's own waits in a vserver, with the account, rights and limits that the
 * program will have, and becomes the program once it is told which. What it is told is one line on a socket; a daemon that is
 * gone closes that, and the shell ends.
 */
import { randomBytes } from 'node:crypto'
import { readlink, rename, utimes } from 'node:fs/promises'
import { isDeepStrictEqual } from 'node:util'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { constants } from 'node:os'
import type { LogChunk } from './enforcer.ts'
import { isAlive, readProcFile } from './process-list.ts'
import { DEFAULT_PATH, findProgram, readProgramHead } from './root-files.ts'

/** Where the shell stands in every vserver, on the layer that nobody inside can change. */
export const SHELL_PATH = '/.slicenet/busybox'
/** The descriptor that it is told on, both as this process gives it and as it has it. */
export const ORDERS_FD = 3
/** It reads its line byte by byte. */
const ORDER_BYTES_MAX = 16_384
/** How it ends when nobody tells it anything: as programs end whose vserver does. */
const UNTOLD = 128 + constants.signals.SIGKILL
/** Variables that mean something to the shell itself. */
const SHELLS_OWN =
  /^(IFS|OPTIND|OPTARG|LINENO|RANDOM|PPID|PS[124]|PWD|OLDPWD|SHLVL|ENV|MAIL|MAILPATH|FUNCNAME|EPOCH\w*|HIST\w*|_)$/
/** Class, byte order and machine of an ELF header; the kernel runs programs of this one's and scripts. */
const ELF_HEAD_BYTES = 20
/** Types of ELF files that are programs: at a fixed place, and anywhere. */
const ELF_PROGRAMS: readonly number[] = [2, 3]

/** The runtime specification's process object. */
export type OciProcess = Readonly<Record<string, unknown>>

/** One that waits. */
export interface WaitingStart {
  /** Of this vserver's launched program alone. */
  readonly directory: string
  /** What the program will be started with; its arguments, environment and directory are still open. */
  readonly process: OciProcess
  readonly pid: number
  readonly orders: Socket
  /** Is among the shell's arguments, and begins each line that the shell itself prints. */
  readonly token: string
}

/** The file with the pid of one that waits; that of a program that runs is called `pid`. */
export function waitingPidFile(directory: string): string {
  return join(directory, 'waiting')
}

/** The process object of the shell that is to become a program like `process`. */
export function shellProcess(process: OciProcess, token: string): OciProcess {
  const script = `IFS= read -r order <&${ORDERS_FD} && eval "$order" || exit ${UNTOLD}`
  return { ...process, args: [SHELL_PATH, 'sh', '-c', script, token], env: [], cwd: '/' }
}

export function makeToken(): string {
  return randomBytes(12).toString('hex')
}

/** Whether one that waits can become the program. */
export function fits(waiting: WaitingStart, process: OciProcess): boolean {
  return isDeepStrictEqual(rest(waiting.process), rest(process))
}

/**
 * What the shell in the root `rootFd` is to be told, so that the program has exactly the arguments, environment and directory of
 * `program`; undefined for what the kernel would not run as it is and for what a shell might take for something else.
 */
export function orderOf(rootFd: number, program: OciProcess): string | undefined {
  const { args, cwd, env } = program as { args: readonly string[]; cwd: string; env: readonly string[] }
  const variables = env.map((each): readonly [string, string] => {
    const at = each.indexOf('=')
    return [each.slice(0, at), each.slice(at + 1)]
  })
  if (variables.some(([name]) => SHELLS_OWN.test(name))) return undefined
  const [argv0 = '', ...others] = args
  const searched = variables.find(([name]) => name === 'PATH')?.[1] ?? DEFAULT_PATH
  const path = findProgram(rootFd, argv0, searched, cwd)
  if (path === undefined || !runsHere(rootFd, path)) return undefined
  const order = [
    `exec ${ORDERS_FD}>&-`,
    `unset HOME`,
    ...variables.map(([name, value]) => `export ${name}=${quoted(value)}`),
    `cd -P -- ${quoted(cwd)} || exit`,
    'unset PWD OLDPWD SHLVL',
    // Scripts are told the path that they are run by.
    `exec -a ${quoted(argv0)} -- ${[argv0.includes('/') ? argv0 : path, ...others].map(quoted).join(' ')}`
  ].join('; ')
  return Buffer.byteLength(order) > ORDER_BYTES_MAX ? undefined : `${order}\n`
}

/** Tells it; false when it has ended before. */
export async function tell(waiting: WaitingStart, order: string): Promise<boolean> {
  if ((await lookAt(waiting)) !== 'shell') return false
  const { directory, orders } = waiting
  const now = new Date()
  // From its time on the program counts as started: should the daemon end now, the shell does, and that is told of it.
  await utimes(waitingPidFile(directory), now, now)
  await rename(waitingPidFile(directory), join(directory, 'pid'))
  orders.end(order)
  return true
}

/** What runs under the pid: the shell, something else, or nothing any more. */
export async function lookAt({
  pid,
  token
}: Pick<WaitingStart, 'pid' | 'token'>): Promise<'shell' | 'other' | 'nothing'> {
  const [commandLine, isThere] = await Promise.all([readProcFile(pid, 'cmdline'), isAlive(pid)])
  if (!isThere) return 'nothing'
  // It has none for a moment as it becomes another program, and as it ends, but only then no program file either.
  if (commandLine === '' && !(await hasFile(pid))) return 'nothing'
  return commandLine.includes(token) ? 'shell' : 'other'
}

async function hasFile(pid: number): Promise<boolean> {
  return readlink(`/proc/${pid}/exe`).then(
    () => true,
    () => false
  )
}

/** Whether the shell said, before anything else was logged, why it could not become the program. */
export async function hasComplained(log: AsyncIterable<LogChunk>, token: string): Promise<boolean> {
  let said = ''
  for await (const { bytes } of log) {
    said += Buffer.from(bytes).toString()
    if (said.length > token.length) break
  }
  return said.startsWith(`${token}:`)
}

function rest({ args: _args, env: _env, cwd: _cwd, ...others }: OciProcess): OciProcess {
  return others
}

/** In quotes in which the shell takes nothing for anything else. */
function quoted(text: string): string {
  const bytes = [...Buffer.from(text)].map((byte) =>
    /[\w./:=@%+,-]/.test(String.fromCharCode(byte)) && byte < 0x80
      ? String.fromCharCode(byte)
      : `\\${byte.toString(8).padStart(3, '0')}`
  )
  return `$'${bytes.join('')}'`
}

/** A shell would run what the kernel does not as a script of its own. */
function runsHere(rootFd: number, path: string): boolean {
  const head = readProgramHead(rootFd, path, ELF_HEAD_BYTES)
  if (head.toString('latin1', 0, 2) === '#!') return /^#![ \t]*[^\s\0]/.test(head.toString('latin1'))
  const own = readProgramHead(rootFd, SHELL_PATH, ELF_HEAD_BYTES)
  if (head.length < ELF_HEAD_BYTES || !head.subarray(0, 6).equals(own.subarray(0, 6))) return false
  return ELF_PROGRAMS.includes(head.readUInt16LE(16)) && head.subarray(18).equals(own.subarray(18))
}

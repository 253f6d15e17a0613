/** What runs in a group of processes, as /proc tells it: read in bounded pieces, whatever the programs call themselves. */
import { open, readFile } from 'node:fs/promises'
import { LIMITS } from '../base/limits.ts'
import type { VserverProcess } from './enforcer.ts'

/** Each takes three descriptors. */
const PIDS_AT_ONCE = 64

/** Those of `pids` that are there; `firstId` is the host id that is user 0 of their vserver. */
export async function readProcesses(pids: readonly number[], firstId: number): Promise<VserverProcess[]> {
  const found: VserverProcess[] = []
  for (let at = 0; at < pids.length; at += PIDS_AT_ONCE) {
    const read = await Promise.all(
      pids.slice(at, at + PIDS_AT_ONCE).map(async (pid) => readProcess(pid, firstId))
    )
    found.push(...read.filter((process) => process !== undefined))
  }
  return found
}

/** The first bytes of a file of /proc/PID: what a process says of itself may be as long as it likes. Empty when it has gone. */
export async function readProcFile(pid: number, file: string, bytesMax = 8192): Promise<string> {
  try {
    await using handle = await open(`/proc/${pid}/${file}`, 'r')
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(bytesMax))
    return buffer.toString('utf8', 0, bytesRead)
  } catch {
    return ''
  }
}

/** Whether there is such a process that has not ended, waited for or not. */
export async function isAlive(pid: number): Promise<boolean> {
  const stat = await readProcFile(pid, 'stat')
  // After the program's name, which may hold anything but ends with the last bracket, comes the state.
  const state = stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3)
  return state !== '' && !'ZX'.includes(state)
}

async function readProcess(pid: number, firstId: number): Promise<VserverProcess | undefined> {
  try {
    const [stat, status, argv] = await Promise.all([
      readFile(`/proc/${pid}/stat`, 'utf8'),
      readFile(`/proc/${pid}/status`, 'utf8'),
      readArguments(pid)
    ])
    // After the program's name, which may hold anything but ends with the last bracket, the start is the 20th field.
    const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'))
    const startedTicks = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19])
    const uid = Number(/^Uid:\s+(\d+)/m.exec(status)?.[1]) - firstId
    return { pid, startedTicks, uid, argv: argv.length === 0 ? [`[${name}]`] : argv }
  } catch (error) {
    // It ended meanwhile.
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined
    throw error
  }
}

async function readArguments(pid: number): Promise<string[]> {
  await using file = await open(`/proc/${pid}/cmdline`, 'r')
  const { buffer, bytesRead } = await file.read(Buffer.alloc(LIMITS.auditEntryBytesMax / 2))
  const text = buffer.subarray(0, bytesRead).toString()
  return text === '' ? [] : text.replace(/\0$/, '').split('\0')
}

/**
 * The program of the host that the kernel hands the memory of crashed processes to, those in vservers included: a limit on
 * core files does not hold for it (core(5)).
 */
import { readFile } from 'node:fs/promises'

const CORE_PATTERN = '/proc/sys/kernel/core_pattern'

/** The program's command line; `undefined` when the kernel writes core files, which vservers may not have. */
export function coreHandlerOf(pattern: string): string | undefined {
  return pattern.startsWith('|') ? pattern.slice(1).trim() : undefined
}

/** That of this machine. */
export async function readCoreHandler(): Promise<string | undefined> {
  return coreHandlerOf(await readFile(CORE_PATTERN, 'utf8').catch(() => ''))
}

/** For people; `undefined` without a handler. */
export function coreHandlerWarning(handler: string | undefined): string | undefined {
  if (handler === undefined) return undefined
  return `a crash in a vserver hands its memory to a program of the host, run as root: ${handler}`
}

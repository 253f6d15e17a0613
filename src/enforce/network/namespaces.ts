/**
 * Ways into network namespaces that are known by the kernel's names of them, through whichever processes are in them. A process id
 * may be another's by the time it is used, and a name another namespace's: so a namespace is held, and its name read again.
 */
import { open, readdir, readlink } from 'node:fs/promises'

/** Ids of the processes that are in each of these namespaces (`net:[4026531840]`), of those that have any. */
export async function processesIn(names: ReadonlySet<string>): Promise<ReadonlyMap<string, number[]>> {
  const found = new Map<string, number[]>()
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    // Processes come and go.
    const name = await readlink(`/proc/${entry}/ns/net`).catch(() => '')
    if (names.has(name)) found.set(name, [...(found.get(name) ?? []), Number(entry)])
  }
  return found
}

/**
 * Runs a task with a path at which nsenter(1) finds the namespace that has this name now, and has it until the task is over. Only
 * the caller knows whether that is still the one that is meant. Resolves `undefined` when none of these processes is in it.
 */
export async function inNamespace<T>(
  name: string,
  pids: readonly number[],
  task: (path: string) => Promise<T>
): Promise<T | undefined> {
  for (const pid of pids) {
    const handle = await open(`/proc/${pid}/ns/net`).catch(() => undefined)
    if (handle === undefined) continue
    try {
      const path = `/proc/${process.pid}/fd/${handle.fd}`
      if ((await readlink(path)) === name) return await task(path)
    } finally {
      await handle.close()
    }
  }
  return undefined
}

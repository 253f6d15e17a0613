/**
 * Keeps compiled modules between runs, in the home directory of the account that runs the program: a command spends most
 * of its time on loading its modules. Without the cache all works the same.
 */
import { mkdirSync, statSync } from 'node:fs'
import { enableCompileCache } from 'node:module'
import { userInfo } from 'node:os'
import { join } from 'node:path'

/** To be called before the modules are loaded that are to come from the cache. */
export function useCompileCache(): void {
  try {
    // Not what HOME says: under sudo that may be somebody else's, and what is in the cache is run.
    const { homedir, uid } = userInfo()
    const directory = join(homedir, '.cache', 'slicenet', 'compiled')
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    const stats = statSync(directory)
    if (stats.uid === uid && (stats.mode & 0o022) === 0) enableCompileCache(directory)
  } catch {
    // An account without a home that it may write in goes without.
  }
}

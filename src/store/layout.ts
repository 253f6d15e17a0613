/**
 * Where things lie in a store's directory:
 *
 *     lock/        a LevelDB that holds nothing; whoever has it open owns the store (`directory-lock.ts`)
 *     owner        the process id of that owner, for people
 *     head         the head mark (`head-mark.ts`)
 *     journal/     the segments (`record.ts`), and the snapshot that they begin at (`snapshot.ts`), if any
 *     tables/      the LevelDB of the tables, rebuilt from the journal and its snapshot if it is not what it should be
 *     tables.seal  whether their files are as LevelDB left them (`tables-seal.ts`)
 *     set-aside-<time>.bin   what a repair took out
 */
import { join } from 'node:path'

export interface Layout {
  readonly directory: string
  readonly lock: string
  readonly owner: string
  readonly head: string
  readonly journal: string
  readonly tables: string
}

export function layoutOf(directory: string): Layout {
  return {
    directory,
    lock: join(directory, 'lock'),
    owner: join(directory, 'owner'),
    head: join(directory, 'head'),
    journal: join(directory, 'journal'),
    tables: join(directory, 'tables')
  }
}

/**
 * Keeps LevelDB from files that are not as it left them: it does not look at its checksums, and some damage makes it end
 * the whole process. A note beside the tables says `sealed` with a hash of their files while they are closed,
 * `verifying` while a start reads them all, and `open` afterwards. It need not outlive a power cut: without it the tables
 * are looked at as they are.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isMissing } from './disk.ts'

/** Beside the tables' directory. */
export function sealOf(directory: string): string {
  return `${directory}.seal`
}

/** Why LevelDB must not open the tables, or undefined; then they count as being verified. */
export async function findSealFault(directory: string): Promise<string | undefined> {
  const [state, hash] = (await readNote(sealOf(directory))).split(' ')
  if (state === 'verifying') return 'the last start ended while it read them'
  if (state === 'sealed' && hash !== (await hashFiles(directory))) return 'their files were altered'
  await note(directory, 'verifying')
  return undefined
}

export async function noteOpen(directory: string): Promise<void> {
  await note(directory, 'open')
}

/** The tables must be closed. */
export async function seal(directory: string): Promise<void> {
  await note(directory, `sealed ${await hashFiles(directory)}`)
}

async function note(directory: string, text: string): Promise<void> {
  await writeFile(sealOf(directory), text, { mode: 0o600 })
}

async function readNote(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (isMissing(error)) return ''
    throw error
  }
}

async function hashFiles(directory: string): Promise<string> {
  const sum = createHash('sha256')
  for (const name of (await readdir(directory)).sort()) {
    // What LevelDB writes for people, and never reads.
    if (name === 'LOG' || name === 'LOG.old' || name === 'LOCK') continue
    const content = createHash('sha256')
    for await (const piece of createReadStream(join(directory, name))) content.update(piece as Uint8Array)
    sum.update(`${name}\0${content.digest('hex')}\0`)
  }
  return sum.digest('hex')
}

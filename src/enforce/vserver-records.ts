/**
 * What this node has made or began to make, one file a vserver, written before anything is made: so whatever a crash
 * leaves behind can be found and removed (design §3, "intent is written before the virtual machine is made").
 */
import { mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import type { Startable } from '../base/lifecycle.ts'
import type { ProgramSpec, VserverSpec } from './enforcer.ts'

export interface VserverRecord {
  readonly spec: VserverSpec
  /** What the runtime, its groups, disk and bundle are called: the vserver's id, or another where it was made ahead. */
  readonly container: string
  /** First host id of its range. */
  readonly uidBase: number
  /** `making` until it ran once: after a crash then, nobody knows how far it came. */
  readonly phase: 'making' | 'made'
  /** Process id of its init on the host. */
  readonly pid?: number
  readonly address?: string
  /** What was launched and has not been stopped since. */
  readonly launched?: Launched
}

export interface Launched {
  readonly program: ProgramSpec
  /** How often it was started again. */
  readonly restarts: number
  /** How often since it last ran for long. */
  readonly streak: number
}

export interface VserverRecordsInit {
  readonly directory: string
}

export class VserverRecords implements Startable {
  readonly #directory: string
  readonly #records = new Map<string, VserverRecord>()

  constructor(init: VserverRecordsInit) {
    this.#directory = init.directory
  }

  async start(): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    this.#records.clear()
    for (const name of await readdir(this.#directory)) {
      const path = join(this.#directory, name)
      const record = name.endsWith('.json') ? parse(await readFile(path, 'utf8')) : undefined
      // What a crash left half written would stay for ever.
      if (record === undefined) await rm(path, { force: true })
      else this.#records.set(record.spec.id, record)
    }
  }

  async stop(): Promise<void> {}

  get(id: string): VserverRecord | undefined {
    return this.#records.get(id)
  }

  /** Throws `NOT_FOUND`. */
  require(id: string): VserverRecord {
    const record = this.#records.get(id)
    if (record === undefined) throw new SlicenetError('NOT_FOUND', `there is no vserver ${id} on this node`)
    return record
  }

  all(): VserverRecord[] {
    return [...this.#records.values()]
  }

  async put(record: VserverRecord): Promise<void> {
    const path = join(this.#directory, `${record.spec.id}.json`)
    await writeFile(`${path}.new`, JSON.stringify(record), { mode: 0o600 })
    await rename(`${path}.new`, path)
    this.#records.set(record.spec.id, record)
  }

  async remove(id: string): Promise<void> {
    await rm(join(this.#directory, `${id}.json`), { force: true })
    this.#records.delete(id)
  }
}

/** Those in a directory that somebody else writes; `undefined` when there is no such directory. */
export async function readRecords(directory: string): Promise<VserverRecord[] | undefined> {
  const names = await readdir(directory).catch(whereGone(undefined))
  if (names === undefined) return undefined
  const texts = names
    .filter((name) => name.endsWith('.json'))
    .map(async (name) => readFile(join(directory, name), 'utf8').catch(whereGone('')))
  return (await Promise.all(texts)).flatMap((text) => parse(text) ?? [])
}

/** For what is not there; what cannot be read for another reason is there for all that anybody knows. */
export function whereGone<T>(value: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code !== 'ENOENT') throw error
    return value
  }
}

/** A file that the power went out on is no record; what it spoke of did not outlive that either. */
function parse(text: string): VserverRecord | undefined {
  try {
    const record = JSON.parse(text) as Omit<VserverRecord, 'container'> & Partial<VserverRecord>
    return { ...record, container: record.container ?? record.spec.id }
  } catch {
    return undefined
  }
}

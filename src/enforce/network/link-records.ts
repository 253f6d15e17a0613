/**
 * What the node remembers of its links across restarts of the daemon: one small file a link, written before the kernel is
 * changed, so that whatever a crash leaves behind has an owner.
 */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import type { PortRange } from '../../ticket/ports.ts'
import { portRangeSchema, shapingSchema } from '../../ticket/resource-schema.ts'
import { RESOURCE_NAMES, type Resources } from '../../ticket/resources.ts'
import type { Shaping } from '../../ticket/shaping.ts'

export interface LinkRecord {
  readonly id: string
  /** The link's number, from which its device, address and classes follow. */
  readonly index: number
  /** The vserver's network namespace, `net:[…]`. */
  readonly namespace: string
  readonly ports: readonly PortRange[]
  readonly resources: Resources
  readonly shaping?: Shaping | undefined
  /** Of a vserver that shares the node's network instead of having a link: its host ids, both included. */
  readonly ids?: { readonly first: number; readonly last: number }
}

const amount = v.pipe(v.number(), v.integer(), v.minValue(0))
const ranges = v.array(portRangeSchema)
const recordSchema = v.object({
  id: v.string(),
  index: v.pipe(v.number(), v.integer(), v.minValue(1)),
  namespace: v.string(),
  ports: ranges,
  resources: v.object(v.entriesFromList(RESOURCE_NAMES, amount)),
  shaping: v.exactOptional(shapingSchema),
  ids: v.exactOptional(v.object({ first: amount, last: amount }))
})

/** Reads every record; a file that is damaged is removed, for its link can be made anew. */
export async function readRecords(directory: string): Promise<LinkRecord[]> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const records: LinkRecord[] = []
  for (const name of await readdir(directory)) {
    const path = join(directory, name)
    const record = name.endsWith('.json') ? await readRecord(path) : undefined
    if (record !== undefined && name === fileName(record.index)) records.push(record)
    else await rm(path, { force: true, recursive: true })
  }
  return records
}

export async function writeRecord(directory: string, record: LinkRecord): Promise<void> {
  const path = join(directory, fileName(record.index))
  await writeFile(`${path}.new`, JSON.stringify(record), { mode: 0o600 })
  await rename(`${path}.new`, path)
}

export async function removeRecord(directory: string, index: number): Promise<void> {
  await rm(join(directory, fileName(index)), { force: true })
}

async function readRecord(path: string): Promise<LinkRecord | undefined> {
  try {
    const result = v.safeParse(recordSchema, JSON.parse(await readFile(path, 'utf8')))
    return result.success ? result.output : undefined
  } catch {
    return undefined
  }
}

function fileName(index: number): string {
  return `${index}.json`
}

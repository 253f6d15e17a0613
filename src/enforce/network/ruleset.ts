/** Talks to nft: every change is one atomic transaction, and counters are read as numbers. */
import { SlicenetError } from '../../base/errors.ts'
import { run } from '../../base/host-program.ts'

/** Applies lines of nft's language, all of them or none. */
export async function applyRules(lines: readonly string[]): Promise<void> {
  if (lines.length === 0) return
  await run('nft', ['-f', '-'], { input: `${lines.join('\n')}\n` })
}

/**
 * Whether the kernel has tables of IPv6; a kernel without them can still have all of IPv4's. Throws `HOST_PROGRAM_FAILED` where
 * nft cannot tell now.
 */
export async function hasTablesOfSix(): Promise<boolean> {
  // The kernel's words for EOPNOTSUPP and EAFNOSUPPORT.
  return kernelTakes('add table ip6 slicenet_probe', /not supported/i)
}

const known = new Map<string, Promise<boolean>>()

/**
 * Whether the kernel takes this text for nft, which is not put in force, or refuses it in these words. Found out once. Throws
 * `HOST_PROGRAM_FAILED` where nft cannot tell now; then it is asked again.
 */
export async function kernelTakes(text: string, refusal: RegExp): Promise<boolean> {
  const answer =
    known.get(text) ??
    probe(text, refusal).catch((error: unknown) => {
      known.delete(text)
      throw error
    })
  known.set(text, answer)
  return answer
}

async function probe(text: string, refusal: RegExp): Promise<boolean> {
  try {
    await run('nft', ['--check', '-f', '-'], { input: `${text}\n` })
    return true
  } catch (error) {
    if (error instanceof SlicenetError && refusal.test(error.message)) return false
    throw error
  }
}

/** Of these tables, those that the kernel can have. */
export async function possibleTables<T extends string>(tables: readonly T[]): Promise<T[]> {
  const hasSix = await hasTablesOfSix()
  return tables.filter((table) => hasSix || !table.startsWith('ip6 '))
}

/** Lines for nft that take these tables away, whichever are there. */
export async function removalOfTables(tables: readonly string[]): Promise<string[]> {
  const possible = await possibleTables(tables)
  return possible.flatMap((table) => [`add table ${table}`, `delete table ${table}`])
}

/** Packets counted by every named counter of a table (`family name`), by the counter's name; empty without the table. */
export async function readCounters(table: string): Promise<Map<string, number>> {
  const [family, name] = table.split(' ')
  const counters = new Map<string, number>()
  for (const { counter } of await listRules(['list', 'counters'])) {
    if (counter?.family !== family || counter?.table !== name) continue
    counters.set(counter?.name ?? '', counter?.packets ?? 0)
  }
  return counters
}

/** Names of a table's chains; empty without the table. */
export async function readChains(table: string): Promise<string[]> {
  const [family, name] = table.split(' ')
  const rules = await listRules(['list', 'chains'])
  return rules
    .filter(({ chain }) => chain?.family === family && chain?.table === name)
    .map(({ chain }) => chain?.name ?? '')
}

interface NftObject {
  readonly family?: string
  readonly table?: string
  readonly name?: string
  readonly packets?: number
}

async function listRules(
  args: readonly string[]
): Promise<readonly { readonly counter?: NftObject; readonly chain?: NftObject }[]> {
  const printed = JSON.parse(await run('nft', ['-j', ...args])) as {
    readonly nftables?: readonly { readonly counter?: NftObject; readonly chain?: NftObject }[]
  }
  return printed.nftables ?? []
}

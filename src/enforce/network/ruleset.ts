/** Talks to nft: every change is one atomic transaction, and counters are read as numbers. */
import { run } from '../../base/host-program.ts'

/** Applies lines of nft's language, all of them or none. */
export async function applyRules(lines: readonly string[]): Promise<void> {
  if (lines.length === 0) return
  await run('nft', ['-f', '-'], { input: `${lines.join('\n')}\n` })
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

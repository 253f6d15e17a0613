/** `slicenet store …`: whether the state on disk is sound, and making it so. */
import type { Command } from 'commander'
import { byteUnit } from '../base/units.ts'
import type { RepairReport, StoreReport } from '../daemon/store-care.ts'
import { examples, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome } from './output.ts'
import { formatFields, formatTime } from './table.ts'

export function addStoreCommand(root: Command, run: RunCommand): void {
  const store = root.command('store').description('look after the state on disk')
  store
    .command('check')
    .description('tell whether the state on disk is sound; changes nothing')
    .addHelpText('after', examples('slicenet store check', 'slicenet store check --json'))
    .action(() => run(check))
  store
    .command('repair')
    .description('keep what is sound of a damaged state and set the rest aside; tells what is lost')
    .addHelpText('after', examples('slicenet store repair'))
    .action(() => run(repair))
}

async function check({ environment }: CommandContext): Promise<Outcome> {
  // Other commands do without the database, which takes long to load.
  const { checkState, stateError } = await import('../daemon/store-care.ts')
  const report = await checkState(environment)
  const error = stateError(report)
  return {
    document: { store: report },
    text: () => formatFields(reportFields(report)),
    ...(error === undefined ? {} : { error })
  }
}

async function repair({ environment }: CommandContext): Promise<Outcome> {
  const { repairState } = await import('../daemon/store-care.ts')
  const report = await repairState(environment)
  return { document: { repair: report }, text: () => formatFields(repairFields(report)) }
}

function reportFields(report: StoreReport): [string, string][] {
  const { lastWrittenAt } = report
  return [
    ['store', report.directory],
    ['found', `${report.damage}: ${report.message}`],
    ['records', String(report.records)],
    ['last written', lastWrittenAt === undefined ? '-' : formatTime(lastWrittenAt)],
    ['segments', String(report.segments)],
    ['snapshot', snapshotText(report)],
    ['size', byteUnit.format(report.bytes)]
  ]
}

function snapshotText({ snapshot }: StoreReport): string {
  if (snapshot === undefined) return '-'
  const entries = snapshot.entries === undefined ? '' : `, ${snapshot.entries} entries`
  return `of record ${snapshot.sequence}${entries}${snapshot.sound ? '' : ', not sound'}`
}

function snapshotRepairText({
  from,
  entriesKept,
  entriesLost
}: NonNullable<RepairReport['snapshot']>): string {
  if (from === 'tables') return 'made anew from the tables, which held all of it'
  const lost = entriesLost === undefined ? 'nobody knows how many' : String(entriesLost)
  return `made anew; entries kept of the old one: ${entriesKept ?? 0}, lost: ${lost}`
}

const ENTRIES_SHOWN = 20

function repairFields(report: RepairReport): [string, string][] {
  const { before, repaired, recordsKept, recordsLost, lostAfter, lostEntries, setAside } = report
  const fields: [string, string][] = [
    ['store', before.directory],
    ['found', `${before.damage}: ${before.message}`],
    ['repaired', repaired ? 'yes' : 'nothing was to be done'],
    ['records kept', String(recordsKept)]
  ]
  if (!repaired) return fields
  fields.push(['records lost', recordsLost === undefined ? 'nobody knows' : String(recordsLost)])
  if (lostAfter !== undefined) fields.push(['lost after', formatTime(lostAfter)])
  if (report.snapshot !== undefined) fields.push(['snapshot', snapshotRepairText(report.snapshot)])
  for (const { table, key, deleted } of lostEntries.slice(0, ENTRIES_SHOWN)) {
    fields.push(['lost', `${table} ${key}${deleted ? ' (its deletion)' : ''}`])
  }
  if (lostEntries.length > ENTRIES_SHOWN)
    fields.push(['lost', `and ${lostEntries.length - ENTRIES_SHOWN} more`])
  if (setAside !== undefined) fields.push(['set aside in', setAside])
  return fields
}

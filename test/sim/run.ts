/**
 * `npm run sim -- --seeds N` simulates the seeds 1 to N; `--first SEED` begins elsewhere, `--flaw NAME` does without a
 * mechanism. `--replay SEED` prints the trace of one. With `--json` one document `{seeds, violations, traceHash,
 * faults: {kind: count}, operations, leases, failures: [{seed, time, invariant, message}]}` on stdout. Exit code 1 when
 * an invariant was violated.
 */
import { parseArgs } from 'node:util'
import { faultsOf, simulateAll, traceHashOf } from './campaign.ts'
import { FLAWS, type Flaw } from './flaws.ts'
import { simulate, type Outcome } from './simulation.ts'

const SEEDS = 100

function usage(message: string): never {
  process.stderr.write(
    `${message}\nusage: npm run sim -- [--seeds N] [--first SEED] [--replay SEED] [--flaw NAME] [--json]\n` +
      Object.entries(FLAWS)
        .map(([name, what]) => `  ${name}: ${what}\n`)
        .join('')
  )
  process.exit(2)
}

function wholeNumber(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const number = Number(text)
  return Number.isSafeInteger(number) && number >= 0 ? number : usage(`--${name} takes a whole number`)
}

function flawNamed(name: string | undefined): Flaw | undefined {
  if (name === undefined) return undefined
  return Object.hasOwn(FLAWS, name) ? (name as Flaw) : usage(`there is no flaw ${name}`)
}

function report(outcomes: readonly Outcome[], asJson: boolean): void {
  const failures = outcomes.flatMap(({ seed, violations }) => violations.map((one) => ({ seed, ...one })))
  const document = {
    seeds: outcomes.length,
    violations: failures.length,
    traceHash: traceHashOf(outcomes),
    faults: faultsOf(outcomes),
    operations: outcomes.reduce((sum, { operations }) => sum + operations, 0),
    leases: outcomes.reduce((sum, { leases }) => sum + leases, 0),
    failures
  }
  if (asJson) {
    process.stdout.write(`${JSON.stringify(document)}\n`)
    return
  }
  const { seeds, violations, traceHash, faults, operations, leases } = document
  const lines = [
    ...failures.map(
      ({ seed, time, invariant, message }) => `seed ${seed} at ${time} ms: ${invariant}: ${message}`
    ),
    `${seeds} seeds, ${operations} operations, ${leases} leases, ${violations} violations`,
    ...Object.entries(faults).map(([kind, count]) => `  ${kind} ${count}`),
    `trace ${traceHash}`
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
}

function options(): { [name: string]: string | boolean | undefined } {
  const text = { type: 'string' } as const
  const known = { seeds: text, first: text, replay: text, flaw: text, json: { type: 'boolean' } } as const
  try {
    return parseArgs({ options: known }).values
  } catch (error) {
    return usage(error instanceof Error ? error.message : String(error))
  }
}

async function main(): Promise<number> {
  const given = options() as {
    seeds?: string
    first?: string
    replay?: string
    flaw?: string
    json?: boolean
  }
  const flaw = flawNamed(given.flaw)
  const replayed = wholeNumber('replay', given.replay)
  const first = wholeNumber('first', given.first) ?? 1
  const count = wholeNumber('seeds', given.seeds) ?? SEEDS
  let outcomes: Outcome[]
  if (replayed === undefined) {
    let done = 0
    const onOutcome = ({ seed, violations }: Outcome): void => {
      done += 1
      if (violations.length > 0) process.stderr.write(`seed ${seed} violates an invariant\n`)
      else if (done % 100 === 0) process.stderr.write(`${done} of ${count} seeds\n`)
    }
    const seeds = Array.from({ length: count }, (_none, index) => first + index)
    outcomes = await simulateAll({ seeds, flaw, onOutcome })
  } else {
    const write = (line: string): void => {
      if (given.json !== true) process.stdout.write(line)
    }
    outcomes = [await simulate(replayed, { write, ...(flaw === undefined ? {} : { flaw }) })]
  }
  report(outcomes, given.json === true)
  const failed = outcomes.filter(({ violations }) => violations.length > 0).map(({ seed }) => seed)
  if (failed.length === 0) return 0
  process.stderr.write(
    `violated by ${failed.length} seeds, to be replayed: ${failed.slice(0, 50).join(' ')}\n`
  )
  return 1
}

process.exitCode = await main()

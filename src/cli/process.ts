/** One command as a process: the real terminal, signals, and the end. */
import { SlicenetError } from '../base/errors.ts'
import { runCli } from './run.ts'
import { systemServices } from './services.ts'

/** A second Ctrl-C ends at once; but a signal that reaches the process twice, by group and by parent, is one. */
const SECOND_AFTER_MS = 300
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const
type EndingSignal = keyof typeof EXIT_CODES

export async function runProcess(): Promise<void> {
  const controller = new AbortController()
  let first: { readonly name: EndingSignal; readonly at: number } | undefined
  const onSignal = (name: EndingSignal): void => {
    const at = performance.now()
    if (first === undefined) {
      first = { name, at }
      controller.abort(new SlicenetError('INTERRUPTED', `interrupted by ${name}`))
    } else if (at - first.at >= SECOND_AFTER_MS) {
      process.exit(EXIT_CODES[name])
    }
  }
  for (const name of Object.keys(EXIT_CODES) as EndingSignal[]) process.on(name, () => onSignal(name))
  // A reader that went away shows where something is written.
  process.stdout.on('error', () => {})
  process.stderr.on('error', () => {})
  const exitCode = await runCli({
    argv: process.argv.slice(2),
    terminal: { stdin: () => process.stdin, stdout: process.stdout, stderr: process.stderr },
    services: systemServices,
    interrupt: controller.signal
  })
  const interruptedBy =
    exitCode === EXIT_CODES.SIGINT ? (first as { name: EndingSignal } | undefined) : undefined
  // Not left to the event loop: standard input may still be open.
  process.exit(interruptedBy === undefined ? exitCode : EXIT_CODES[interruptedBy.name])
}

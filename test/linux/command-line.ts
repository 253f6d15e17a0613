/** The command line in a process of its own, as a user types it. */
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { start } from '../../src/base/host-program.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

export interface Outcome {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

export interface CommandInit {
  /** The state of `slicenet`, and the home of its user. */
  readonly home: string
  /** Environment beside that. */
  readonly variables?: Readonly<Record<string, string>>
  readonly input?: string
}

export async function runCommand(
  words: readonly string[],
  { home, variables = {}, input = '' }: CommandInit
): Promise<Outcome> {
  const env = { HOME: home, SLICENET_HOME: home, ...variables }
  const child = start(process.execPath, [MAIN, ...words], ['pipe', 'pipe', 'pipe'], { env })
  child.stdin?.end(input)
  const read = async (stream: NodeJS.ReadableStream | null): Promise<string> => {
    let text = ''
    for await (const chunk of stream ?? []) text += String(chunk)
    return text
  }
  const [stdout, stderr] = await Promise.all([read(child.stdout), read(child.stderr), once(child, 'close')])
  return { exitCode: child.exitCode ?? -1, stdout, stderr }
}

/** The programs of the contract, as far as a monitor without real ones must simulate them. */
import type { FakeProgram } from '../../src/enforce/fake-enforcer.ts'

/** Tells the size of its terminal once that is no longer the first one. */
export const RESIZED =
  'first=$(stty size); while [ "$(stty size)" = "$first" ]; do sleep 0.05; done; stty size'
/** Tells which byte the first key is. */
export const FIRST_KEY = 'stty raw -echo; echo ready; dd bs=1 count=1 2>/dev/null | od -An -tx1'

/** The programs the contract uses, as far as a fake must simulate them. */
export const contractPrograms: Readonly<Record<string, FakeProgram>> = {
  echo: async ({ program, write }) => {
    write('stdout', `${program.argv.slice(1).join(' ')}\n`)
    return 0
  },
  false: async () => 1,
  cat: async ({ program, files, input, write }) => {
    for (const path of program.argv.slice(1))
      write('stdout', Buffer.from(files.get(path)!.content).toString())
    if (program.argv.length === 1) {
      for await (const bytes of input) write('stdout', Buffer.from(bytes).toString())
    }
    return 0
  },
  // With `size` as its argument.
  stty: async ({ terminal, write }) => {
    const size = terminal?.()
    if (size === undefined) return 1
    write('stdout', `${size.rows} ${size.columns}\n`)
    return 0
  },
  // With one of the scripts above.
  sh: async ({ program, terminal, input, write, signal }) => {
    if (program.argv[2] === FIRST_KEY) {
      write('stdout', 'ready\n')
      for await (const bytes of input) {
        write('stdout', Buffer.from(bytes.subarray(0, 1)).toString('hex'))
        break
      }
      return 0
    }
    const first = JSON.stringify(terminal?.())
    while (!signal.aborted && JSON.stringify(terminal?.()) === first) await nextMoment()
    const size = terminal?.()
    write('stdout', `${size?.rows} ${size?.columns}\n`)
    return 0
  },
  sleep: async ({ signal }) => {
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
    return 143
  }
}

async function nextMoment(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 1))
}

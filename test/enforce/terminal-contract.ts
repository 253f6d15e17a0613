/** The part of the contract of enforcers that is about programs at terminals. */
import type { TestFn } from 'ava'
import type { SlicenetError } from '../../src/base/errors.ts'
import type { Enforcer, ExecSession } from '../../src/enforce/enforcer.ts'
import { FIRST_KEY, RESIZED } from './contract-programs.ts'

export interface TerminalContractInit {
  readonly outputOf: (session: ExecSession) => Promise<{ output: string; exitCode: number }>
  /** Runs a test with one vserver. */
  readonly within: (body: (enforcer: Enforcer, id: string) => Promise<void>) => Promise<void>
}

export function declareTerminalTests(test: TestFn, { outputOf, within }: TerminalContractInit): void {
  test.serial('exec at a terminal has one of the size that was asked for, and otherwise none', async (t) => {
    await within(async (enforcer, id) => {
      const program = { argv: ['stty', 'size'], env: {} }
      const session = await enforcer.exec(id, program, { terminal: { columns: 101, rows: 33 } })
      const { output, exitCode } = await outputOf(session)
      t.deepEqual([output.trim(), exitCode], ['33 101', 0])
      const without = await enforcer.exec(id, program)
      await without.write(undefined)
      t.is((await outputOf(without)).exitCode, 1)
    })
  })

  test.serial('a program at a terminal is given another size while it runs', async (t) => {
    await within(async (enforcer, id) => {
      const program = { argv: ['sh', '-c', RESIZED], env: {} }
      const session = await enforcer.exec(id, program, { terminal: { columns: 80, rows: 24 } })
      session.resizeTerminal({ columns: 101, rows: 33 })
      t.is((await outputOf(session)).output.trim(), '33 101')
      // Where there is no terminal nothing comes of it.
      const without = await enforcer.exec(id, { argv: ['stty', 'size'], env: {} })
      without.resizeTerminal({ columns: 101, rows: 33 })
      await without.write(undefined)
      t.is((await outputOf(without)).exitCode, 1)
    })
  })

  test.serial(
    'the end of input is no key to a program at a terminal, and what is sent after it arrives',
    async (t) => {
      await within(async (enforcer, id) => {
        const program = { argv: ['sh', '-c', FIRST_KEY], env: {} }
        const session = await enforcer.exec(id, program, { terminal: { columns: 80, rows: 24 } })
        let said = ''
        let isAsked = false
        for await (const { bytes } of session.output) {
          said += Buffer.from(bytes).toString()
          if (isAsked || !said.includes('ready')) continue
          isAsked = true
          await session.write(undefined)
          await session.write(Buffer.from('x'))
        }
        t.deepEqual([said.replace('ready', '').trim(), await session.exitCode], ['78', 0])
      })
    }
  )

  test.serial(
    'a program at a terminal can be killed, and what is missing is refused there too',
    async (t) => {
      await within(async (enforcer, id) => {
        const terminal = { columns: 80, rows: 24 }
        const session = await enforcer.exec(id, { argv: ['sleep', '1000'], env: {} }, { terminal })
        session.resizeTerminal({ columns: 90, rows: 24 })
        await session.kill()
        t.true((await session.exitCode) >= 128)
        const missing = { argv: ['no-such-program'], env: {} }
        await t.throwsAsync<SlicenetError>(enforcer.exec(id, missing, { terminal }), {
          code: 'PROGRAM_NOT_FOUND'
        })
      })
    }
  )
}

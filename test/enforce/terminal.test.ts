/** The host's terminal between a program's own and the caller passes on what comes, as it comes. */
import { read as readFrom, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import test from 'ava'
import { run } from '../../src/base/host-program.ts'
import { HostTerminal } from '../../src/enforce/terminal.ts'

/** What is read from it of a line that is typed and of what a program then prints. */
async function passed(prepare: (terminal: HostTerminal) => Promise<unknown>): Promise<string> {
  const terminal = new HostTerminal({ columns: 80, rows: 24 })
  await prepare(terminal)
  await terminal.write(Buffer.from('xyz\r'))
  // When it has been typed, it has been echoed.
  await promisify(readFrom)(terminal.slave, Buffer.alloc(10), 0, 10, null)
  writeSync(terminal.slave, 'printed\r\nend')
  let read = ''
  for await (const chunk of terminal.output as AsyncIterable<Buffer>) {
    read += chunk.toString('latin1')
    if (read.includes('end')) break
  }
  terminal.handOver()
  return read
}

test('nothing is echoed and no line ends otherwise, as a terminal would have it that is left as it begins', async (t) => {
  t.is(await passed(async () => {}), 'printed\r\nend')
  const control = await passed(async ({ slave }) =>
    run('stty', [`--file=/proc/${process.pid}/fd/${slave}`, 'sane'])
  )
  t.is(control, 'xyz\r\nprinted\r\r\nend')
})

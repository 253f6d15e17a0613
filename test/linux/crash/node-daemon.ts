/**
 * A program: the daemon of its environment's configuration, which can be told to kill itself at a moment of its work.
 *
 * It reads lines of JSON: `{arm: moment}` makes it die when the moment is there the next time, and `{tell: true}` makes it tell of all. It
 * prints lines of JSON: `{ready: true}`, `{armed: moment}`, `{died: moment}` as its last, `{moment}`.
 * Its argument takes a mechanism out of it: `forgetful` has commits seem durable that are not yet, `careless` never destroys
 * a vserver.
 */
import { writeSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { createInterface } from 'node:readline'
import { useCompileCache } from '../../../src/cli/compile-cache.ts'

useCompileCache()
const { readEnvironment } = await import('../../../src/daemon/environment.ts')
const { runDaemon } = await import('../../../src/daemon/daemon.ts')
const { changed, watchingDecorators, watchPrograms } = await import('./moments.ts')
const { forgetfulStore } = await import('./forgetful-store.ts')

const [fault = 'none'] = process.argv.slice(2)
let armed: string | undefined
let tells = false

function say(line: object): void {
  writeSync(1, `${JSON.stringify(line)}\n`)
}

function reach(moment: string): void {
  if (tells) say({ moment })
  if (moment !== armed) return
  say({ died: moment })
  process.kill(process.pid, 'SIGKILL')
  // Nothing more is done until the signal is there.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
}

createInterface({ input: process.stdin }).on('line', (line) => {
  const order = JSON.parse(line) as { arm?: string; tell?: boolean }
  if (order.tell !== undefined) tells = order.tell
  if (order.arm === undefined) return
  armed = order.arm
  say({ armed })
})

watchPrograms(reach)
const watching = watchingDecorators(reach)
const decorators: typeof watching = {
  ...watching,
  ...(fault === 'forgetful' ? { store: forgetfulStore } : {}),
  ...(fault === 'careless' ? { enforcer: (enforcer) => changed(enforcer, { destroy: async () => {} }) } : {})
}
const ending = new AbortController()
process.once('SIGTERM', () => ending.abort(new Error('told to end')))
await runDaemon({
  environment: readEnvironment(),
  signal: ending.signal,
  onReady: () => {
    say({ ready: true })
    // It is written at a process's end, which these do not come to.
    flushCompileCache()
  },
  decorators
})
process.exit(0)

/** A thread that simulates the seeds that it is sent, one after the other. */
import { parentPort } from 'node:worker_threads'
import type { Flaw } from './flaws.ts'
import { simulate } from './simulation.ts'

export interface Task {
  readonly seed: number
  readonly flaw?: Flaw
}

parentPort?.on('message', ({ seed, ...init }: Task) => {
  // A rejection ends the thread with an error, which its owner hears.
  void simulate(seed, init).then((outcome) => {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window.
    parentPort?.postMessage(outcome)
  })
})

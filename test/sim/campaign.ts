/** Many seeds on as many threads as there are processors, and what came of all of them together. */
import { createHash } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { FAULT_KINDS, type FaultKind } from './faults.ts'
import type { Flaw } from './flaws.ts'
import type { Outcome } from './simulation.ts'
import type { Task } from './worker.ts'

export interface CampaignInit {
  readonly seeds: readonly number[]
  readonly flaw?: Flaw | undefined
  /** Called as each seed is done. */
  readonly onOutcome?: (outcome: Outcome) => void
  /** Seeds that were not begun are left out once this holds of an outcome. */
  readonly until?: (outcome: Outcome) => boolean
}

/** In the order of the seeds. Throws what a simulation throws. */
export async function simulateAll({ seeds, flaw, onOutcome, until }: CampaignInit): Promise<Outcome[]> {
  const outcomes = new Map<number, Outcome>()
  const waiting = [...seeds]
  const threads = Math.min(availableParallelism(), seeds.length)
  await Promise.all(
    Array.from({ length: threads }, async () => {
      const worker = new Worker(new URL('worker.ts', import.meta.url))
      try {
        for (let seed = waiting.shift(); seed !== undefined; seed = waiting.shift()) {
          const outcome = await ask(worker, { seed, ...(flaw === undefined ? {} : { flaw }) })
          outcomes.set(seed, outcome)
          onOutcome?.(outcome)
          if (until?.(outcome) === true) waiting.length = 0
        }
      } finally {
        await worker.terminate()
      }
    })
  )
  return seeds.flatMap((seed) => outcomes.get(seed) ?? [])
}

async function ask(worker: Worker, task: Task): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const onError = (error: unknown): void => {
      reject(new Error(`seed ${task.seed} cannot be simulated`, { cause: error }))
    }
    worker.once('error', onError)
    worker.once('message', (outcome: Outcome) => {
      worker.off('error', onError)
      resolve(outcome)
    })
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window.
    worker.postMessage(task)
  })
}

/** SHA-256 over the seeds and the hashes of their traces. */
export function traceHashOf(outcomes: readonly Outcome[]): string {
  const hash = createHash('sha256')
  for (const { seed, hash: trace } of outcomes) hash.update(`${seed} ${trace}\n`)
  return hash.digest('hex')
}

export function faultsOf(outcomes: readonly Outcome[]): Record<FaultKind, number> {
  const sum = (kind: FaultKind): number => outcomes.reduce((total, { faults }) => total + faults[kind], 0)
  return Object.fromEntries(FAULT_KINDS.map((kind) => [kind, sum(kind)])) as Record<FaultKind, number>
}

/**
 * How many calls the daemon works on at a time. Those that last as long as their callers like are counted apart: a program
 * that listens to all it has keeps no command out.
 */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Handlers } from '../protocol/method.ts'
import type { ControlMethods } from './control-client.ts'

const LASTING: ReadonlySet<string> = new Set<keyof ControlMethods>([
  'discover',
  'sliceWatch',
  'sliceExec',
  'sliceLogs'
])

/** The handlers, which throw `BUSY` beyond the limits. */
export function admitting(handlers: Handlers<ControlMethods>): Handlers<ControlMethods> {
  const lasting = counter(LIMITS.controlStreamsMax)
  const others = counter(LIMITS.controlCallsMax)
  const counted = Object.entries(handlers).map(([method, handler]) => {
    const during = LASTING.has(method) ? lasting : others
    const work = handler as (params: unknown, call: unknown) => Promise<unknown>
    return [method, async (params: unknown, call: unknown) => during(async () => work(params, call))]
  })
  return Object.fromEntries(counted) as Handlers<ControlMethods>
}

function counter(max: number): (work: () => Promise<unknown>) => Promise<unknown> {
  let count = 0
  return async (work) => {
    if (count >= max) throw new SlicenetError('BUSY', `the daemon works on ${max} such calls already`)
    count += 1
    try {
      return await work()
    } finally {
      count -= 1
    }
  }
}

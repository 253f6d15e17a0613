/** Making a slice so that either whoever asked has it or nobody: what was made for one who gave up meanwhile is given up. */
import type { Progress, SliceDescription, SliceView } from '../service/slice.ts'
import type { ProgressSettings } from './client.ts'
import type { Session } from './session.ts'

export async function makeSlice(
  { call }: Pick<Session, 'call'>,
  description: SliceDescription,
  { onProgress, signal }: ProgressSettings = {}
): Promise<SliceView> {
  signal?.throwIfAborted()
  const givingUp = new AbortController()
  const made = Promise.withResolvers<boolean>()
  let isKept = false
  // Once the peer was told to keep it there is no way back but to delete it.
  const onAbort = (): void => {
    if (!isKept) givingUp.abort(signal?.reason)
  }
  signal?.addEventListener('abort', onAbort, { once: true })
  const input = (async function* () {
    yield { kept: false }
    if (await made.promise) yield { kept: true }
  })()
  const onItem = async (progress: Progress): Promise<void> => {
    await onProgress?.(progress)
    if (progress.step !== 'made' || givingUp.signal.aborted) return
    isKept = true
    made.resolve(true)
  }
  try {
    return await call('sliceCreate', description, { input, onItem, signal: givingUp.signal })
  } finally {
    made.resolve(false)
    signal?.removeEventListener('abort', onAbort)
  }
}

/** Has the image that a demand is for brought to this node, as long as its holder may be kept waiting. */
import type { Clock } from '../base/clock.ts'
import { SlicenetError, asSlicenetError, isDecision } from '../base/errors.ts'
import { endsBefore } from '../base/time-limit.ts'
import type { FetchOptions } from './image-fetching.ts'
import { ImageOnItsWay } from './redemption.ts'

export interface ImageObtainingComponents {
  readonly clock: Pick<Clock, 'timeout'>
  /** As `ImageFetching.fetch`. */
  readonly fetch: (image: string, options: FetchOptions) => Promise<unknown>
}

/** Less than a holder waits for an answer. */
const OBTAIN_MS = 20_000

/**
 * Resolves when the image is here. Throws `ImageOnItsWay` when that takes long, while it goes on, and `IMAGE_MISSING` when
 * it cannot be had.
 */
export async function obtainImage({ clock, fetch }: ImageObtainingComponents, image: string): Promise<void> {
  const fetched = fetch(image, { background: true })
  const settled = fetched.catch(() => {})
  if (!(await endsBefore(settled, clock.timeout(OBTAIN_MS)))) throw new ImageOnItsWay(image)
  try {
    await fetched
  } catch (thrown) {
    const { code, message } = asSlicenetError(thrown)
    // That it cannot be had is the answer to a demand, and signed; a mishap on the way is none by itself.
    if (isDecision(code)) throw thrown
    throw new SlicenetError('IMAGE_MISSING', `the image could not be fetched: ${message}`, { cause: thrown })
  }
}

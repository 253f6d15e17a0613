/** What the daemon answers to those who want an image of another node. */
import type { FetchProgress } from '../node/image-fetching.ts'
import type { Handlers } from '../protocol/method.ts'
import { principalOf, type ContactParts } from './contact-handlers.ts'
import type { ImageSupply } from './image-supply.ts'
import type { supplyMethods } from './supply-protocol.ts'

interface Parts extends ContactParts {
  readonly imageSupply: ImageSupply
}

const PROGRESS_MS = 1000

export function supplyHandlers(parts: () => Parts): Handlers<typeof supplyMethods> {
  return {
    async imageFetch({ image, from, name }, { emit, signal }) {
      const { imageSupply, clock } = parts()
      const principal = from === undefined ? undefined : await principalOf(parts(), from, signal)
      let toldAt = Number.NEGATIVE_INFINITY
      const onProgress = (progress: FetchProgress): void => {
        if (clock.monotonic() - toldAt < PROGRESS_MS) return
        toldAt = clock.monotonic()
        // A caller that went away is noticed by the signal.
        emit(progress).catch(() => {})
      }
      const fetched = await imageSupply.fetch(image, {
        ...(principal === undefined ? {} : { from: principal }),
        ...(name === undefined ? {} : { name }),
        onProgress,
        signal
      })
      return { ...fetched, names: [...fetched.names] }
    }
  }
}

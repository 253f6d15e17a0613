/** Gives other nodes the images of this one, by exact id: so many at a time and so often, to one peer and to all. */
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { within } from '../base/time-limit.ts'
import type { ImageStore } from '../enforce/image-store.ts'
import { CallerRates } from '../peer/caller-rates.ts'
import { CHUNK_BYTES_MAX, type imageProtocol } from '../protocol/image-protocol.ts'
import type { Handlers } from '../protocol/method.ts'
import type { Principal } from '../ticket/principal.ts'

export interface ImageServingComponents {
  readonly images: Pick<ImageStore, 'has' | 'read'>
  readonly clock: Clock
}

export function imageHandlers({
  images,
  clock
}: ImageServingComponents): Handlers<typeof imageProtocol.methods> {
  const turns = new ServingTurns(clock)
  return {
    async fetch({ image, offset }, { principal = '', emit, signal }) {
      // Who asks for what is not here costs nothing, and is not counted.
      if (!(await images.has(image))) {
        throw new SlicenetError('IMAGE_MISSING', `there is no image ${image} on this node`)
      }
      using _turn = turns.take(principal)
      const until = within(clock, LIMITS.imageServeMsMax, signal)
      let bytes = 0
      for await (const chunk of images.read(image)) {
        const skipped = Math.min(Math.max(offset - bytes, 0), chunk.length)
        bytes += chunk.length
        for (let at = skipped; at < chunk.length; at += CHUNK_BYTES_MAX) {
          until.throwIfAborted()
          await emit({ bytes: chunk.subarray(at, at + CHUNK_BYTES_MAX) })
        }
      }
      return { bytes }
    }
  }
}

class ServingTurns {
  readonly #clock: Clock
  readonly #rates = new CallerRates({
    each: { burst: LIMITS.imageServesPerCallerBurst, perMinute: LIMITS.imageServesPerCallerPerMinute },
    all: { burst: LIMITS.imageServesBurst, perMinute: LIMITS.imageServesPerMinute }
  })
  /** Who is being served, once for each. */
  readonly #served: Principal[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Throws `BUSY`. */
  take(caller: Principal): Disposable {
    const own = this.#served.filter((principal) => principal === caller).length
    if (this.#served.length >= LIMITS.imageServesAtOnceMax || own >= LIMITS.imageServesPerCallerMax) {
      throw new SlicenetError('BUSY', `${this.#served.length} images are being served`)
    }
    if (!this.#rates.take(caller, this.#clock.monotonic())) {
      throw new SlicenetError('BUSY', 'images are asked for too often')
    }
    this.#served.push(caller)
    return { [Symbol.dispose]: () => void this.#served.splice(this.#served.indexOf(caller), 1) }
  }
}

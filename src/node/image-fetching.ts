/**
 * Fetches images of other nodes by their ids: what comes is hashed as it comes, goes on where it was cut off, with
 * whichever peer, and becomes an image of the store only when it is what the id says. A peer that sent something else is
 * not asked for that image again.
 */
import type { Clock } from '../base/clock.ts'
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { orAborted } from '../base/time-limit.ts'
import type { Image, ImageStore } from '../enforce/image-store.ts'
import type { PartialImage } from '../enforce/partial-image.ts'
import type { imageProtocol } from '../protocol/image-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import type { Principal } from '../ticket/principal.ts'

export interface ImageFetchingComponents {
  readonly images: Pick<ImageStore, 'has' | 'find' | 'import' | 'partial' | 'evict'>
  readonly clock: Clock
  readonly logger: Logger
  readonly callImages: (peer: Principal) => Caller<typeof imageProtocol.methods>
  /** Who says that it has the image, the likeliest first. */
  readonly sources: (image: string, signal: AbortSignal) => Promise<readonly Principal[]>
}

export interface ImageFetchingInit {
  /** Default `LIMITS.imageArchiveBytesMax`. */
  readonly bytesMax?: number
  /** What fetched images without a name may have in all, beside the last one; default no bound. */
  readonly fetchedBytesMax?: number
  /** How long a peer may bring next to nothing; default `LIMITS.imageStallMsMax`. */
  readonly stallMs?: number
  /** How long is waited before those that were busy or cut off are asked again; default 2 s. */
  readonly retryMs?: number
}

export interface FetchOptions {
  /** Whom to ask, and nobody else. */
  readonly from?: Principal
  /** Told now and then how many bytes are here. */
  readonly onProgress?: (progress: FetchProgress) => void
  /** Goes on when nobody waits for it any more, until `stop`. */
  readonly background?: boolean
  readonly signal?: AbortSignal
}

export interface FetchProgress {
  readonly bytes: number
  readonly from: Principal
}

interface Running {
  readonly done: Promise<Image>
  readonly stopping: AbortController
  readonly listeners: Set<(progress: FetchProgress) => void>
  waiting: number
}

const RETRY_MS = 2000
/** Rounds over all sources that may bring nothing before it is given up. */
const IDLE_ROUNDS_MAX = 3
/** Rounds in all: peers that send a little and leave could go on forever. */
const ROUNDS_MAX = 256
/** What an import says of an archive itself. */
const HOPELESS: readonly string[] = ['IMAGE_INVALID', 'TOO_LARGE']

export class ImageFetching {
  readonly #components: ImageFetchingComponents
  readonly #init: ImageFetchingInit
  readonly #running = new Map<string, Running>()
  /** `<image> <peer>` of what did not hash to its id, the oldest first. */
  readonly #cheats = new Set<string>()

  constructor(components: ImageFetchingComponents, init: ImageFetchingInit = {}) {
    this.#components = components
    this.#init = init
  }

  /** Ends what is under way; what came is kept. */
  async stop(): Promise<void> {
    const running = [...this.#running.values()]
    for (const { stopping } of running)
      stopping.abort(new SlicenetError('INTERRUPTED', 'the peer is stopping'))
    await Promise.allSettled(running.map(async ({ done }) => done))
  }

  /**
   * Gives the image once it is in the store; at once where it is there already. Calls for the same image join what is
   * under way. Throws `IMAGE_MISSING` when nobody has it, `IMAGE_INVALID` when only something else was sent, `TOO_LARGE`,
   * `BUSY`, `STORE_FAILED`, and else what became of the last peer that was asked.
   */
  async fetch(image: string, options: FetchOptions = {}): Promise<Image> {
    const { signal, onProgress, background = false } = options
    signal?.throwIfAborted()
    if (await this.#components.images.has(image)) return this.#components.images.find(image)
    const running = this.#join(image, options.from)
    if (onProgress !== undefined) running.listeners.add(onProgress)
    running.waiting += 1
    try {
      return await (signal === undefined ? running.done : orAborted(running.done, signal))
    } finally {
      if (onProgress !== undefined) running.listeners.delete(onProgress)
      // Who wants it in the background goes on waiting, as it were.
      if (!background) running.waiting -= 1
      if (running.waiting === 0)
        running.stopping.abort(new SlicenetError('INTERRUPTED', 'nobody waits for it'))
    }
  }

  #join(image: string, from: Principal | undefined): Running {
    const before = this.#running.get(image)
    if (before !== undefined && !before.stopping.signal.aborted) return before
    if (this.#running.size >= LIMITS.imageFetchesAtOnceMax) {
      throw new SlicenetError('BUSY', `${this.#running.size} images are being fetched`)
    }
    const stopping = new AbortController()
    const listeners: Running['listeners'] = new Set()
    const tell = (progress: FetchProgress): void => {
      for (const listener of listeners) listener(progress)
    }
    const done = this.#fetch(image, from, stopping.signal, tell).finally(() => {
      if (this.#running.get(image) === running) this.#running.delete(image)
    })
    // Those who wait are told; nobody may be left by then.
    done.catch(() => {})
    const running: Running = { done, stopping, listeners, waiting: 0 }
    this.#running.set(image, running)
    return running
  }

  async #fetch(
    image: string,
    from: Principal | undefined,
    signal: AbortSignal,
    tell: (progress: FetchProgress) => void
  ): Promise<Image> {
    const { images, sources, logger } = this.#components
    const partial = await images.partial(image)
    try {
      if (!partial.isWhole()) {
        const peers = from === undefined ? await sources(image, signal) : [from]
        await this.#gather(
          image,
          peers,
          new Gathering(this.#components, this.#init, { partial, signal, tell })
        )
      }
      const made = await images.import(partial.path, { id: image, isFetched: true })
      logger.info('image fetched', { image, bytes: partial.bytes })
      await partial.remove()
      await this.#evict(image)
      return made
    } catch (error) {
      // An archive that is what its id says and cannot be an image never will be one.
      const isFutile = partial.isWhole() && HOPELESS.includes(asSlicenetError(error).code)
      if (isFutile || partial.bytes === 0) await partial.remove()
      else await partial.keep()
      throw error
    }
  }

  /** That there is too much of others is no fault of the one that came. */
  async #evict(keep: string): Promise<void> {
    const { images, logger } = this.#components
    const { fetchedBytesMax: bytesMax } = this.#init
    if (bytesMax === undefined) return
    try {
      const removed = await images.evict({ bytesMax, keep })
      if (removed.length > 0) logger.info('fetched images were removed to make room', { images: removed })
    } catch (error) {
      logger.error('fetched images could not be removed to make room', { error })
    }
  }

  /** Asks one peer after the other, and all of them again, as long as that brings something. */
  async #gather(image: string, peers: readonly Principal[], gathering: Gathering): Promise<void> {
    const left = new Set(peers.slice(0, LIMITS.imageSourcesMax))
    let failure = new SlicenetError('IMAGE_MISSING', `no peer that is known has the image ${image}`, {
      hint: 'give one that has it with `--from`; see `slicenet find` for the images of nodes'
    })
    for (let idle = 0, round = 0; idle < IDLE_ROUNDS_MAX && round < ROUNDS_MAX && left.size > 0; round++) {
      let isIdle = true
      for (const peer of left) {
        if (this.#cheats.has(`${image} ${peer}`)) {
          left.delete(peer)
          failure = new SlicenetError('IMAGE_INVALID', `${peer} sent something else as ${image} before`, {
            hint: 'get it from another peer'
          })
          continue
        }
        const outcome = await gathering.ask(peer)
        if (outcome.isWhole) return
        if (outcome.cheated !== undefined) this.#remember(image, outcome.cheated)
        if (outcome.isOver) left.delete(peer)
        if (outcome.brought) isIdle = false
        failure = outcome.error
      }
      idle = isIdle ? idle + 1 : 0
      if (left.size > 0 && idle < IDLE_ROUNDS_MAX) await gathering.pause()
    }
    throw failure
  }

  #remember(image: string, cheat: Principal): void {
    this.#components.logger.warn('a peer sent something else than the image', { image, peer: cheat })
    this.#cheats.add(`${image} ${cheat}`)
    const [oldest] = this.#cheats
    if (this.#cheats.size > LIMITS.imageCheatsMax && oldest !== undefined) this.#cheats.delete(oldest)
  }
}

type Outcome =
  | { readonly isWhole: true }
  | {
      readonly isWhole: false
      readonly error: SlicenetError
      /** Whether there is no use in asking this peer again. */
      readonly isOver: boolean
      readonly brought: boolean
      /** Who sent what is not of the image. */
      readonly cheated?: Principal
    }

/** Codes that a peer will say again. */
const FINAL: readonly string[] = ['IMAGE_MISSING', 'DENIED', 'PROTOCOL_ERROR']

/** What came of one image so far, and of whom. */
class Gathering {
  readonly #components: ImageFetchingComponents
  readonly #bytesMax: number
  readonly #stallMs: number
  readonly #retryMs: number
  readonly #partial: PartialImage
  readonly #signal: AbortSignal
  readonly #tell: (progress: FetchProgress) => void
  /** Those whose bytes are in the file; `undefined` stands for what was there before. */
  readonly #contributors = new Set<Principal | undefined>()
  /** Set once bytes of several made no image: from then on each peer brings all of it, so that it is known who lies. */
  #isAlone = false
  /** What was found here with what the peer sends; it may say the same words of itself. */
  #fault: SlicenetError | undefined

  constructor(
    components: ImageFetchingComponents,
    init: ImageFetchingInit,
    run: {
      readonly partial: PartialImage
      readonly signal: AbortSignal
      readonly tell: (progress: FetchProgress) => void
    }
  ) {
    this.#components = components
    this.#bytesMax = init.bytesMax ?? LIMITS.imageArchiveBytesMax
    this.#stallMs = init.stallMs ?? LIMITS.imageStallMsMax
    this.#retryMs = init.retryMs ?? RETRY_MS
    this.#partial = run.partial
    this.#signal = run.signal
    this.#tell = run.tell
    if (run.partial.bytes > 0) this.#contributors.add(undefined)
  }

  async pause(): Promise<void> {
    await this.#components.clock.sleep(this.#retryMs, { signal: this.#signal })
  }

  async ask(peer: Principal): Promise<Outcome> {
    const partial = this.#partial
    if (this.#isAlone && !this.#isOnlyOf(peer)) await this.#empty()
    const before = partial.bytes
    try {
      const total = await this.#receive(peer)
      if (total === partial.bytes && partial.isWhole()) return { isWhole: true }
    } catch (thrown) {
      this.#signal.throwIfAborted()
      if (this.#fault?.code === 'STORE_FAILED') throw this.#fault
      if (this.#fault !== undefined) return this.#spoilt(peer, this.#fault)
      const error = asSlicenetError(thrown)
      const brought = partial.bytes > before
      return { isWhole: false, error, isOver: !brought && FINAL.includes(error.code), brought }
    }
    const error = new SlicenetError('IMAGE_INVALID', `what ${peer} sent is not the image ${partial.id}`, {
      hint: 'get it from another peer'
    })
    return this.#spoilt(peer, error)
  }

  /** What is here is not the image. Where one peer alone brought it, that one is to blame. */
  async #spoilt(peer: Principal, error: SlicenetError): Promise<Outcome> {
    const isToBlame = this.#isOnlyOf(peer)
    this.#isAlone = !isToBlame
    await this.#empty()
    return isToBlame
      ? { isWhole: false, error, isOver: true, brought: false, cheated: peer }
      : { isWhole: false, error, isOver: false, brought: true }
  }

  /** Gives the length of the whole archive, as the peer has it. Throws `TOO_LARGE`, `TIMEOUT`, and what the call does. */
  async #receive(peer: Principal): Promise<number> {
    const { callImages } = this.#components
    const partial = this.#partial
    this.#fault = undefined
    const stalled = new AbortController()
    const over = new AbortController()
    const watching = this.#watch(peer, stalled, over.signal)
    watching.catch(() => {})
    try {
      const params = { image: partial.id, offset: partial.bytes }
      const { bytes } = await callImages(peer)('fetch', params, {
        signal: AbortSignal.any([this.#signal, stalled.signal]),
        onItem: async (item) => {
          try {
            await this.#take(peer, item.bytes)
          } catch (error) {
            this.#fault = asSlicenetError(error)
            throw error
          }
        }
      })
      return bytes
    } finally {
      over.abort(new Error('the call is over'))
    }
  }

  /** Throws `TOO_LARGE`, `STORE_FAILED`. */
  async #take(peer: Principal, bytes: Uint8Array): Promise<void> {
    const partial = this.#partial
    if (partial.bytes + bytes.length > this.#bytesMax) {
      throw new SlicenetError('TOO_LARGE', `the image has more than ${this.#bytesMax} bytes`, {
        hint: 'see the largest that the configuration of this node lets it fetch'
      })
    }
    this.#contributors.add(peer)
    await partial.write(bytes)
    this.#tell({ bytes: partial.bytes, from: peer })
  }

  /** Gives up a peer that keeps the call open and brings next to nothing. */
  async #watch(peer: Principal, stalled: AbortController, over: AbortSignal): Promise<void> {
    for (let before = this.#partial.bytes; ; before = this.#partial.bytes) {
      await this.#components.clock.sleep(this.#stallMs, { signal: over })
      if (this.#partial.bytes - before >= LIMITS.imageStallBytesMin) continue
      const message = `${peer} brought next to nothing for ${Math.round(this.#stallMs / 1000)} s`
      stalled.abort(new SlicenetError('TIMEOUT', message))
      return
    }
  }

  #isOnlyOf(peer: Principal): boolean {
    return [...this.#contributors].every((contributor) => contributor === peer)
  }

  async #empty(): Promise<void> {
    this.#contributors.clear()
    await this.#partial.empty()
  }
}

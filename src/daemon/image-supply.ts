/**
 * Images of other nodes, for this machine's store: on request, and where the configuration lets it for tickets that are
 * redeemed. What does the work is loaded when it is first needed.
 */
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import type { Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { Image, ImageStore } from '../enforce/image-store.ts'
import type { FetchOptions, ImageFetching } from '../node/image-fetching.ts'
import type { Directory } from '../peer/directory.ts'
import type { PeerHost } from '../peer/host.ts'
import { imageProtocol } from '../protocol/image-protocol.ts'
import type { Principal } from '../ticket/principal.ts'

export interface ImageSupplyComponents {
  readonly host: PeerHost
  readonly directory: Directory
  readonly clock: Clock
  readonly logger: Logger
}

export interface ImageSupplyInit {
  readonly imagesDirectory: string
  /** Those that this peer delegates to; they know which nodes there are. */
  readonly agents: readonly Principal[]
  /** Of the archive of one image. */
  readonly bytesMax: number
  /** Of fetched images without a name, in all; default no bound. */
  readonly fetchedBytesMax?: number
}

interface Open {
  readonly images: ImageStore
  readonly fetching: ImageFetching
}

export class ImageSupply implements Startable {
  readonly #components: ImageSupplyComponents
  readonly #init: ImageSupplyInit
  #open: Promise<Open> | undefined

  constructor(components: ImageSupplyComponents, init: ImageSupplyInit) {
    this.#components = components
    this.#init = init
  }

  async start(): Promise<void> {}

  async stop(): Promise<void> {
    const open = this.#open
    this.#open = undefined
    await (await open?.catch(() => undefined))?.fetching.stop()
  }

  /** Throws as `ImageFetching.fetch`; `NOT_ROOT`, and `USAGE` for what is no name. */
  async fetch(image: string, options: FetchOptions & { readonly name?: string } = {}): Promise<Image> {
    const { images, fetching } = await this.#opened()
    const fetched = await fetching.fetch(image, options)
    return options.name === undefined ? fetched : images.name(image, options.name)
  }

  async #opened(): Promise<Open> {
    this.#open ??= this.#make()
    return this.#open
  }

  async #make(): Promise<Open> {
    if (process.getuid?.() !== 0) {
      throw new SlicenetError(
        'NOT_ROOT',
        'images hold the files of other accounts, so only root may fetch them',
        {
          hint: 'ask a daemon that runs as root'
        }
      )
    }
    const { host, directory, clock, logger } = this.#components
    const [{ ImageStore }, { ImageFetching }, { imageSources }] = await Promise.all([
      import('../enforce/image-store.ts'),
      import('../node/image-fetching.ts'),
      import('../node/image-sources.ts')
    ])
    const { imagesDirectory, agents, bytesMax, fetchedBytesMax } = this.#init
    const images = new ImageStore({ clock }, { directory: imagesDirectory })
    await images.start()
    const fetching = new ImageFetching(
      {
        images,
        clock,
        logger,
        callImages: (peer) => host.caller(imageProtocol, peer),
        sources: async (image, signal) => imageSources({ host, directory, clock, agents }, image, signal)
      },
      { bytesMax, ...(fetchedBytesMax === undefined ? {} : { fetchedBytesMax }) }
    )
    return { images, fetching }
  }
}

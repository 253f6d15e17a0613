/** The machine's images, for the CLI: what enforcement's image store and builder do. */

import { systemClock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { buildImage, IMAGE_KINDS } from '../enforce/image-build.ts'
import { ImageStore } from '../enforce/image-store.ts'
import type { Environment } from './environment.ts'

export interface ImageView {
  /** `sha256:<64 hex digits>`. */
  readonly id: string
  readonly names: readonly string[]
  readonly bytes: number
  readonly entries: number
  /** UTC ms. */
  readonly importedAt: number
}

export interface ImageOptions {
  readonly onProgress: (message: string) => void
  readonly signal: AbortSignal
}

export interface Images {
  /** Throws `USAGE` for a name without a recipe. */
  readonly buildImage: (name: string, options: ImageOptions) => Promise<ImageView>
  readonly importImage: (path: string, name: string) => Promise<ImageView>
  readonly listImages: () => Promise<readonly ImageView[]>
  /**
   * Removes an image with all its names; gives what it was. Throws `IMAGE_MISSING`, `AMBIGUOUS_ID`, and `IN_USE` while a
   * vserver of this machine has it.
   */
  readonly removeImage: (nameOrIdPrefix: string) => Promise<ImageView>
}

/** The machine's image store and builder. All of it throws `NOT_ROOT` for others than root. */
export async function createImages(environment: Environment, uid = process.getuid?.()): Promise<Images> {
  if (uid !== 0) {
    throw new SlicenetError(
      'NOT_ROOT',
      'images hold the files of other accounts, so only root may use them',
      {
        hint: 'run it again as root'
      }
    )
  }
  const images = new ImageStore({ clock: systemClock }, { directory: environment.imagesDirectory })
  await images.start()
  return {
    async buildImage(name, { onProgress, signal }) {
      const kind = IMAGE_KINDS.find((known) => known === name)
      if (kind === undefined) {
        throw new SlicenetError('USAGE', `there is no recipe for an image ${name}`, {
          hint: `recipes are ${IMAGE_KINDS.join(', ')}; import anything else with \`slicenet image import\``
        })
      }
      return buildImage(kind, { images }, { onProgress, signal })
    },
    importImage: (path, name) => images.import(path, { name }),
    listImages: () => images.list(),
    async removeImage(nameOrIdPrefix) {
      const image = await images.find(nameOrIdPrefix)
      await images.remove(image.id)
      return image
    }
  }
}

/** The machine's images, for the CLI: what enforcement's image store and builder do. */

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
  /** The kinds that `buildImage` takes. */
  readonly kinds: readonly string[]
  readonly buildImage: (name: string, options: ImageOptions) => Promise<ImageView>
  readonly importImage: (path: string, name: string) => Promise<ImageView>
  readonly listImages: () => Promise<readonly ImageView[]>
}

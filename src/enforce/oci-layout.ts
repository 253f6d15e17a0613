/**
 * OCI image layouts (a directory with `oci-layout`, `index.json` and `blobs/`): the image for this machine is chosen,
 * each blob is checked against its digest and size before it is used, and the layers become one archive of a root.
 */
import { createHash } from 'node:crypto'
import {
  closeSync,
  constants,
  createReadStream,
  createWriteStream,
  fstatSync,
  openSync,
  readFileSync
} from 'node:fs'
import { lstat, open, rm, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { PassThrough, Transform, type TransformCallback } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { OCI_LAYOUT_FILES, tooLarge } from './image-archive.ts'
import { LayerTree } from './layer-tree.ts'
import { isErrno, openBeneath } from './syscall.ts'
import { readTar } from './tar-reader.ts'
import { tarOfTree } from './tar-writer.ts'

/** What Go, whose words image manifests use, calls the architectures that Node names. */
const GO_ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' }
/** An index may name others; tools nest them once. */
const INDEX_DEPTH_MAX = 4
const GZIP_MAGIC = Buffer.from([0x1f, 0x8b])
const ZSTD_MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd])
/** Behind a first byte 0x50 to 0x5f, of a frame that holds nothing of the content. */
const ZSTD_SKIPPED_MAGIC = Buffer.from([0x2a, 0x4d, 0x18])
const LAYER_TYPES = /^application\/vnd\.(oci\.image\.layer|docker\.image\.rootfs)\.(?!.*encrypted)/
const CONFIG_TYPES = [
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json'
]
const INDEX_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json'
]

const digestSchema = v.pipe(
  v.string(),
  v.regex(/^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/, 'expected a digest sha256:<hex> or sha512:<hex>')
)
const descriptorSchema = v.object({
  mediaType: v.optional(v.string(), ''),
  digest: digestSchema,
  size: v.pipe(v.number(), v.integer(), v.minValue(0)),
  platform: v.optional(v.object({ architecture: v.string(), os: v.string() })),
  annotations: v.optional(v.record(v.string(), v.string()))
})
type Descriptor = v.InferOutput<typeof descriptorSchema>

const versionSchema = v.object({ imageLayoutVersion: v.pipe(v.string(), v.startsWith('1.')) })
const indexSchema = v.object({
  manifests: v.pipe(v.array(descriptorSchema), v.maxLength(LIMITS.imageManifestsMax))
})
const manifestSchema = v.object({
  config: descriptorSchema,
  layers: v.pipe(v.array(descriptorSchema), v.maxLength(LIMITS.imageLayersMax))
})
const configSchema = v.object({
  architecture: v.string(),
  os: v.string(),
  rootfs: v.object({ diff_ids: v.array(digestSchema) })
})

interface Chosen {
  readonly layers: readonly Descriptor[]
  /** Digests of the layers as they are when not compressed. */
  readonly diffIds: readonly string[]
}

export interface OciLayoutOptions {
  /** An empty directory, for what is unpacked meanwhile. */
  readonly workDirectory: string
  /** As Node names it; default this machine's. */
  readonly architecture?: string
  /** Of all layers together, unpacked; default `LIMITS.imageBytesMax`. */
  readonly bytesMax?: number
}

/** Whether a directory is an OCI image layout rather than a root. */
export async function isOciLayout(directory: string): Promise<boolean> {
  const files = await Promise.all(
    OCI_LAYOUT_FILES.map(async (name) => lstat(join(directory, name)).catch(() => undefined))
  )
  return files.every((file) => file?.isFile() === true)
}

/**
 * Writes the root that the layers of the layout's image for this machine come to into a new archive. Throws
 * `IMAGE_INVALID` when there is none or more than one, or something in it is not what its digest says; `TOO_LARGE`.
 */
export async function flattenLayout(
  layout: string,
  archive: string,
  options: OciLayoutOptions
): Promise<void> {
  const node = options.architecture ?? process.arch
  const wanted = `linux/${GO_ARCHITECTURES[node] ?? node}`
  const blobs = new Blobs(layout)
  const files: FileHandle[] = []
  const paths: string[] = []
  try {
    const { layers, diffIds } = chooseImage(blobs, wanted)
    let left = options.bytesMax ?? LIMITS.imageBytesMax
    for (const [index, layer] of layers.entries()) {
      const path = join(options.workDirectory, `layer-${index}.tar`)
      paths.push(path)
      left -= await expandLayer(blobs, layer, { diffId: diffIds[index]!, path, bytesMax: left })
      files.push(await open(path, 'r'))
    }
    const tree = await treeOf(files)
    await pipeline(tarOfTree(tree, files), createWriteStream(archive, { flags: 'wx', mode: 0o600 }))
  } finally {
    blobs.close()
    await Promise.all(files.map(async (file) => file.close()))
    await Promise.all(paths.map(async (path) => rm(path, { force: true })))
  }
}

async function treeOf(layers: readonly FileHandle[]): Promise<LayerTree> {
  const tree = new LayerTree()
  let entries = 0
  for (const [index, layer] of layers.entries()) {
    // What a layer hides is meant of the lower ones, wherever in it that stands.
    for await (const entry of readTar(layer)) {
      if (++entries > LIMITS.imageEntriesMax) throw tooLarge()
      tree.hide(entry)
    }
    for await (const entry of readTar(layer)) tree.add(entry, index)
  }
  return tree
}

function chooseImage(blobs: Blobs, wanted: string): Chosen {
  parse(versionSchema, blobs.file('oci-layout'), 'oci-layout')
  const images = imagesOf(blobs, parse(indexSchema, blobs.file('index.json'), 'index.json').manifests, wanted)
  const others: string[] = []
  const fitting: { digest: string; chosen: Chosen }[] = []
  for (const { digest, size } of images) {
    const manifest = parse(manifestSchema, blobs.document(digest, size), `manifest ${digest}`)
    const { config } = manifest
    // Signatures and the like travel the same way.
    if (!CONFIG_TYPES.includes(config.mediaType)) continue
    const { os, architecture, rootfs } = parse(
      configSchema,
      blobs.document(config.digest, config.size),
      `configuration ${config.digest}`
    )
    const platform = `${os}/${architecture}`
    if (platform !== wanted) others.push(platform)
    else fitting.push({ digest, chosen: { layers: manifest.layers, diffIds: rootfs.diff_ids } })
  }
  const [first, second] = fitting
  if (second !== undefined) {
    const digests = fitting.map(({ digest }) => digest).join(', ')
    throw invalid(`the layout has ${fitting.length} images for ${wanted}: ${digests}`, {
      hint: 'copy the one that is meant to a layout of its own: `skopeo copy oci:LAYOUT:TAG oci:NEW`'
    })
  }
  if (first === undefined) {
    const there =
      others.length === 0 ? 'none for another system' : `only for ${[...new Set(others)].join(', ')}`
    throw invalid(`the layout has no image for ${wanted}, ${there.slice(0, 500)}`, {
      hint: 'get the image for the architecture of this machine: `skopeo copy --override-arch …`'
    })
  }
  const { layers, diffIds } = first.chosen
  if (layers.length !== diffIds.length)
    throw invalid('the manifest and the configuration name different layers')
  return first.chosen
}

/** The manifests that may be meant, each once: those that say that they are for another system are left out. */
function imagesOf(blobs: Blobs, top: readonly Descriptor[], wanted: string): Descriptor[] {
  const found = new Map<string, Descriptor>()
  const others = new Set<string>()
  let seen = 0
  const visit = (descriptors: readonly Descriptor[], depth: number): void => {
    for (const descriptor of descriptors) {
      if (++seen > LIMITS.imageManifestsMax || depth > INDEX_DEPTH_MAX)
        throw invalid('the layout has too many manifests')
      const { digest, size, mediaType, platform, annotations = {} } = descriptor
      if (annotations['vnd.docker.reference.type'] === 'attestation-manifest') continue
      if (INDEX_TYPES.includes(mediaType)) {
        visit(parse(indexSchema, blobs.document(digest, size), `index ${digest}`).manifests, depth + 1)
        continue
      }
      const named = platform === undefined ? wanted : `${platform.os}/${platform.architecture}`
      if (named === wanted) found.set(digest, descriptor)
      else others.add(named)
    }
  }
  visit(top, 0)
  if (found.size === 0 && others.size > 0) {
    throw invalid(`the layout has no image for ${wanted}, only for ${[...others].join(', ').slice(0, 500)}`, {
      hint: 'get the image for the architecture of this machine: `skopeo copy --override-arch …`'
    })
  }
  return [...found.values()]
}

/** Unpacks a layer that was checked and gives how many bytes it has. */
async function expandLayer(
  blobs: Blobs,
  { digest, size, mediaType }: Descriptor,
  init: { readonly diffId: string; readonly path: string; readonly bytesMax: number }
): Promise<number> {
  if (!LAYER_TYPES.test(mediaType))
    throw invalid(`layer ${digest} is of a kind that is not known: ${mediaType}`)
  const magic = await blobs.verify(digest, size)
  const hash = createHash(algorithmOf(init.diffId))
  let bytes = 0
  const counted = new Transform({
    transform(chunk: Buffer, _encoding, done: TransformCallback) {
      bytes += chunk.length
      hash.update(chunk)
      if (bytes > init.bytesMax) done(tooLarge())
      else done(null, chunk)
    }
  })
  try {
    const target = createWriteStream(init.path, { flags: 'wx', mode: 0o600 })
    await pipeline(blobs.stream(digest), decompressor(magic), counted, target)
  } catch (error) {
    const code = String((error as NodeJS.ErrnoException).code)
    if (!/^(Z_|ZSTD_|ERR_)/.test(code)) throw error
    throw invalid(`layer ${digest} cannot be decompressed`, { cause: error })
  }
  if (`${algorithmOf(init.diffId)}:${hash.digest('hex')}` !== init.diffId) {
    throw invalid(
      `layer ${digest} does not hold what the configuration of the image says`,
      isZstd(magic)
        ? { hint: 'zstd in several frames (zstd:chunked) is not read: save the image with gzip' }
        : {}
    )
  }
  return bytes
}

function isZstd(magic: Buffer): boolean {
  const isSkipped = ((magic[0] ?? 0) & 0xf0) === 0x50 && magic.subarray(1).equals(ZSTD_SKIPPED_MAGIC)
  return isSkipped || magic.equals(ZSTD_MAGIC)
}

/** By what the bytes are, since tools do not agree on what they say of them. */
function decompressor(magic: Buffer): Transform {
  if (magic.subarray(0, 2).equals(GZIP_MAGIC)) return createGunzip()
  if (isZstd(magic)) return createZstdDecompress()
  return new PassThrough()
}

/** The files of a layout, which a link in it cannot make others than the layout's own. */
class Blobs {
  readonly #fd: number

  constructor(layout: string) {
    this.#fd = openSync(layout, constants.O_RDONLY | constants.O_DIRECTORY)
  }

  close(): void {
    closeSync(this.#fd)
  }

  /** A file at the top. */
  file(name: string): Buffer {
    const fd = this.#open(name)
    try {
      if (fstatSync(fd).size > LIMITS.imageDocumentBytesMax) throw invalid(`${name} is too long`)
      return readFileSync(fd)
    } finally {
      closeSync(fd)
    }
  }

  /** A checked blob that is kept in memory. */
  document(digest: string, size: number): Buffer {
    if (size > LIMITS.imageDocumentBytesMax) throw invalid(`${digest} is too long`)
    const bytes = this.file(pathOf(digest))
    checkBlob(digest, size, bytes.length, createHash(algorithmOf(digest)).update(bytes).digest('hex'))
    return bytes
  }

  /** Reads a blob through. Gives its first bytes. */
  async verify(digest: string, size: number): Promise<Buffer> {
    const hash = createHash(algorithmOf(digest))
    let bytes = 0
    let magic = Buffer.alloc(0)
    for await (const chunk of this.stream(digest) as AsyncIterable<Buffer>) {
      if (magic.length < 4) magic = Buffer.concat([magic, chunk.subarray(0, 4)])
      bytes += chunk.length
      if (bytes > size) break
      hash.update(chunk)
    }
    checkBlob(digest, size, bytes, hash.digest('hex'))
    return magic.subarray(0, 4)
  }

  stream(digest: string): NodeJS.ReadableStream {
    return createReadStream('', { fd: this.#open(pathOf(digest)), highWaterMark: 1024 * 1024 })
  }

  #open(path: string): number {
    let fd: number
    try {
      fd = openBeneath(this.#fd, path, constants.O_RDONLY | constants.O_NONBLOCK, { crossMounts: true })
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error
      throw invalid(`the layout lacks ${path}`, { cause: error })
    }
    if (fstatSync(fd).isFile()) return fd
    closeSync(fd)
    throw invalid(`${path} is no file`)
  }
}

function checkBlob(digest: string, size: number, bytes: number, hex: string): void {
  if (bytes < size) throw invalid(`${digest} is cut off: ${bytes} of ${size} bytes`)
  if (bytes > size) throw invalid(`${digest} is longer than its ${size} bytes`)
  if (`${algorithmOf(digest)}:${hex}` !== digest)
    throw invalid(`${digest} was altered: its content is another`)
}

function pathOf(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`
}

function algorithmOf(digest: string): string {
  return digest.slice(0, digest.indexOf(':'))
}

function parse<T extends v.GenericSchema>(schema: T, bytes: Buffer, what: string): v.InferOutput<T> {
  let document: unknown
  try {
    document = JSON.parse(bytes.toString('utf8'))
  } catch (error) {
    throw invalid(`${what} is no JSON`, { cause: error })
  }
  const parsed = v.safeParse(schema, document)
  if (parsed.success) return parsed.output
  const [issue] = parsed.issues
  throw invalid(`${what}: ${v.getDotPath(issue) ?? ''} ${issue.message}`.slice(0, 500))
}

function invalid(
  message: string,
  init: { readonly hint?: string; readonly cause?: unknown } = {}
): SlicenetError {
  return new SlicenetError('IMAGE_INVALID', message, {
    hint: 'make the layout again, and copy it whole',
    ...init
  })
}

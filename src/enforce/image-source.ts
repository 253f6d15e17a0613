/** What an image is taken in from: a root, or the layers of one, each as a directory or an archive. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { inspectArchive, packDirectory, unpackArchive, type ArchiveSummary } from './image-archive.ts'
import { flattenLayout, isOciLayout } from './oci-layout.ts'
import { removeTree } from './remove-tree.ts'

/**
 * An archive of the root that a path is or describes, inspected; what is made for that lies in `work`. Throws `IMAGE_INVALID`,
 * `TOO_LARGE`.
 */
export async function archiveOf(
  path: string,
  isDirectory: boolean,
  work: string,
  { architecture }: { readonly architecture?: string }
): Promise<{ readonly archive: string; readonly summary: ArchiveSummary }> {
  const flattened = join(work, 'flattened.tar')
  const options = { workDirectory: work, ...(architecture === undefined ? {} : { architecture }) }
  if (isDirectory) {
    const packed = join(work, 'packed.tar')
    const isLayout = await isOciLayout(path)
    if (isLayout) await flattenLayout(path, flattened, options)
    else await packDirectory(path, packed)
    const archive = isLayout ? flattened : packed
    return { archive, summary: await inspectArchive(archive) }
  }
  const summary = await inspectArchive(path)
  if (summary.form === 'oci-layout') {
    const layout = join(work, 'layout')
    await mkdir(layout)
    await unpackArchive(path, layout, summary)
    await flattenLayout(layout, flattened, options)
    await removeTree(layout)
    return { archive: flattened, summary: await inspectArchive(flattened) }
  }
  if (summary.form === 'root') return { archive: path, summary }
  throw new SlicenetError(
    'IMAGE_INVALID',
    `${path} holds the layers of an image in a form older than OCI's`,
    {
      hint: `save it with Docker 25 or later, or run \`skopeo copy docker-archive:${path} oci-archive:NEW.tar\``
    }
  )
}

/** `slicenet image …`: the root file systems that vservers on this machine can have. */
import type { Command } from 'commander'
import { resolve } from 'node:path'
import { byteUnit } from '../base/units.ts'
import type { ImageView } from '../daemon/images.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { formatTable, formatTime, shortId } from './table.ts'

export function addImageCommand(root: Command, run: RunCommand): void {
  const image = root.command('image').description('build, import and list the images of this machine')
  image
    .command('build')
    .description('build one of the images that slicenet knows how to make (root)')
    .argument('<name>', 'debian or busybox')
    .addHelpText('after', examples('slicenet image build debian'))
    .action((name: string) => run((context) => build(context, name)))
  image
    .command('import')
    .description('take in a root file system, or the layers of one as an OCI image layout (root)')
    .argument(
      '<path>',
      'a directory, or a tar archive, compressed or not; of a root or of an OCI image layout'
    )
    .requiredOption('--name <name>', 'what nodes and slices call it')
    .addHelpText(
      'after',
      `${examples(
        'slicenet image import ./rootfs.tar.gz --name alpine',
        'skopeo copy docker://alpine oci-archive:alpine.tar && slicenet image import alpine.tar --name alpine'
      )}

Of a layout with images for several machines, the one for this machine is taken. Only its files are: what its
configuration says of a command, an account or an environment is left to slice descriptions.`
    )
    .action((path: string, options: { name: string }) => run((context) => take(context, path, options.name)))
  image
    .command('list')
    .description('list the images of this machine')
    .addHelpText('after', examples('slicenet image list'))
    .action(() => run(list, QUESTION))
}

async function build(context: CommandContext, name: string): Promise<Outcome> {
  const { buildImage } = await context.services.images(context.environment)
  return outcomeOf(await buildImage(name, { onProgress: context.progress, signal: context.signal }))
}

async function take(context: CommandContext, path: string, name: string): Promise<Outcome> {
  const { importImage } = await context.services.images(context.environment)
  return outcomeOf(await importImage(resolve(path), name))
}

async function list(context: CommandContext): Promise<Outcome> {
  const { listImages } = await context.services.images(context.environment)
  const images = await listImages()
  return { document: { images }, text: (style) => imageTable(images, style) }
}

function outcomeOf(image: ImageView): Outcome {
  return { document: { image }, text: (style) => imageTable([image], style) }
}

function imageTable(images: readonly ImageView[], style: Style): string {
  if (images.length === 0) return 'No images. `slicenet image build busybox` makes a small one.\n'
  const rows = images.map((image) => [
    image.names.join(',') || '-',
    shortId(image.id),
    byteUnit.format(image.bytes),
    formatTime(image.importedAt)
  ])
  return formatTable(['NAME', 'IMAGE', 'SIZE', 'IMPORTED'], rows, style)
}

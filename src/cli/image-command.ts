/** `slicenet image …`: the root file systems that vservers on this machine can have. */
import type { Command } from 'commander'
import { resolve } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { byteUnit } from '../base/units.ts'
import type { ImageView } from '../daemon/images.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { withSession } from './session.ts'
import { formatTable, formatTime, shortId, tame } from './table.ts'

const ID_PATTERN = /^sha256:[0-9a-f]{64}$/

export function addImageCommand(root: Command, run: RunCommand): void {
  const image = root
    .command('image')
    .description('build, import, fetch, list and remove the images of this machine')
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
    .command('fetch')
    .description('get an image of another node, through the daemon, which must run as root')
    .argument('<id>', 'sha256:<64 hex digits>, as `slicenet find --json` tells of nodes')
    .option(
      '--from <peer>',
      'have it of this peer alone: its principal, name, the beginning of either, or an address'
    )
    .option('--name <name>', 'what nodes and slices call it')
    .addHelpText(
      'after',
      `${examples('slicenet image fetch sha256:9f86d081… --name alpine', 'slicenet image fetch sha256:9f86d081… --from node1')}

What came is kept when it is interrupted or cut off, and gone on with next time.`
    )
    .action((id: string, options: { from?: string; name?: string }) =>
      run((context) => fetch(context, id, options))
    )
  image
    .command('remove')
    .description('remove an image that no vserver of this machine has, with all its names (root)')
    .argument('<image>', 'its name, or its id or how that begins')
    .addHelpText('after', examples('slicenet image remove alpine', 'slicenet image remove sha256:9f86d081'))
    .action((given: string) => run((context) => remove(context, given)))
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

async function fetch(
  context: CommandContext,
  id: string,
  options: { readonly from?: string; readonly name?: string }
): Promise<Outcome> {
  const { signal, progress } = context
  if (!ID_PATTERN.test(id)) {
    throw new SlicenetError('USAGE', `${tame(id)} is no whole id of an image`, {
      hint: 'an id is sha256: and 64 hex digits, which `slicenet find --json` tells'
    })
  }
  const onItem = ({ bytes, from }: { readonly bytes: number; readonly from: string }): void =>
    progress(`${byteUnit.format(bytes)} so far, from ${shortId(from)}`)
  const params = { image: id, ...options }
  return outcomeOf(await withSession(context, (call) => call('imageFetch', params, { signal, onItem })))
}

async function remove(context: CommandContext, given: string): Promise<Outcome> {
  const { removeImage } = await context.services.images(context.environment)
  const image = await removeImage(given)
  const names = image.names.length === 0 ? '' : ` (${image.names.join(', ')})`
  return { document: { image }, text: () => `removed ${image.id}${names}\n` }
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

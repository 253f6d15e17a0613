/**
 * Builds the two reference images that slicenet brings along: a small Debian for measuring programs, and busybox for
 * trying things. Both come out the same wherever and whenever they are built from the same packages.
 */
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { run } from '../base/host-program.ts'
import { findHostProgram, isStatic } from './host-requirements.ts'
import type { Image, ImageStore } from './image-store.ts'

export const IMAGE_KINDS = ['debian', 'busybox'] as const
export type ImageKind = (typeof IMAGE_KINDS)[number]

/** Debian 12's release: files are never younger, so that two builds of the same packages agree. */
const SOURCE_DATE_EPOCH = 1_686_355_200
const SUITE = 'bookworm'
const DEADLINE_MS = 20 * 60_000
const PACKAGES = 'ca-certificates,iproute2,iputils-ping,python3-minimal'

/** What the image itself uses: Debian's own example. The host's mirror, which may be a private one, stays out of it. */
const EXAMPLE_SOURCES = '/usr/share/doc/apt/examples/sources.list'

export interface ImageBuildComponents {
  readonly images: ImageStore
}

export interface ImageBuildOptions {
  readonly onProgress?: (message: string) => void
  /** Where the build works; needs about 500 MB for Debian. Default: the system's directory for temporary files. */
  readonly scratchDirectory?: string
  readonly signal?: AbortSignal
}

/** Builds an image and imports it under the name of its kind. Throws `HOST_PROGRAM_MISSING`, `HOST_PROGRAM_FAILED`. */
export async function buildImage(
  kind: ImageKind,
  components: ImageBuildComponents,
  options: ImageBuildOptions = {}
): Promise<Image> {
  const progress = options.onProgress ?? ((): void => {})
  const scratch = await mkdtemp(join(options.scratchDirectory ?? '/var/tmp', 'slicenet-image-'))
  try {
    const archiveOrRoot =
      kind === 'debian'
        ? await buildDebian(scratch, progress, options.signal)
        : await buildBusybox(scratch, progress)
    progress('importing')
    const image = await components.images.import(archiveOrRoot, { name: kind })
    progress(`done: ${image.id}`)
    return image
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

async function buildDebian(
  scratch: string,
  progress: (message: string) => void,
  signal?: AbortSignal
): Promise<string> {
  progress('building Debian 12 with mmdebstrap; this takes about a minute')
  const archive = join(scratch, 'debian.tar')
  // The package manager's own account, which is not root, works below it.
  await chmod(scratch, 0o755)
  await run(
    'mmdebstrap',
    [
      '--mode=root',
      '--variant=minbase',
      `--include=${PACKAGES}`,
      '--dpkgopt=path-exclude=/usr/share/man/*',
      '--dpkgopt=path-exclude=/usr/share/doc/*',
      '--dpkgopt=path-include=/usr/share/doc/*/copyright',
      `--dpkgopt=path-include=${EXAMPLE_SOURCES}`,
      '--dpkgopt=path-exclude=/usr/share/locale/*',
      '--aptopt=Acquire::Retries "3"',
      `--customize-hook=rm -f "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/apt.conf.d/99mmdebstrap`,
      `--customize-hook=sed 's/ contrib.*//' "$1"${EXAMPLE_SOURCES} > "$1"/etc/apt/sources.list`,
      '--customize-hook=rm -rf "$1"/var/cache/* "$1"/var/log/*.log "$1"/etc/machine-id',
      // Hosts the build ran on are nobody's business, and a fresh /dev is made for every vserver.
      '--customize-hook=rm -f "$1"/etc/resolv.conf "$1"/etc/hostname',
      '--skip=output/dev',
      SUITE,
      archive,
      ...(await hostSources())
    ],
    {
      env: { SOURCE_DATE_EPOCH: String(SOURCE_DATE_EPOCH), TMPDIR: scratch },
      deadlineMs: DEADLINE_MS,
      ...(signal === undefined ? {} : { signal })
    }
  )
  return archive
}

/** The host's lists of this suite, so that its mirror serves the build too; none means Debian's own mirrors. */
async function hostSources(): Promise<string[]> {
  const files = ['/etc/apt/sources.list', '/etc/apt/sources.list.d/debian.sources']
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')))
  return files.filter((_, index) => texts[index]!.includes(SUITE))
}

async function buildBusybox(scratch: string, progress: (message: string) => void): Promise<string> {
  progress('building a busybox root')
  const busybox = await findHostProgram('busybox')
  if (busybox === undefined) {
    throw new SlicenetError('HOST_PROGRAM_MISSING', 'the program busybox is not installed', {
      hint: 'run `slicenet doctor --install`, which installs busybox-static'
    })
  }
  if (!(await isStatic(busybox))) {
    throw new SlicenetError('HOST_PROGRAM_MISSING', `${busybox} is not a static program`, {
      hint: 'install the Debian package busybox-static'
    })
  }
  const root = join(scratch, 'root')
  for (const directory of ['bin', 'dev', 'etc', 'home', 'proc', 'root', 'sys', 'tmp', 'usr/bin', 'var/tmp']) {
    await mkdir(join(root, directory), { recursive: true })
  }
  await chmod(join(root, 'tmp'), 0o1777)
  await chmod(join(root, 'var/tmp'), 0o1777)
  await chmod(join(root, 'root'), 0o700)
  await copyFile(busybox, join(root, 'bin/busybox'))
  await chmod(join(root, 'bin/busybox'), 0o755)
  const applets = (await run(busybox, ['--list'])).split('\n').filter((name) => /^[\w.[-]+$/.test(name))
  for (const applet of applets) {
    if (applet !== 'busybox') await symlink('busybox', join(root, 'bin', applet))
  }
  await writeFile(
    join(root, 'etc/passwd'),
    'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n'
  )
  await writeFile(join(root, 'etc/group'), 'root:x:0:\nnogroup:x:65534:\n')
  await settleTimes(root)
  return root
}

/** Times are part of an image's content, so they must not tell when it was built. */
async function settleTimes(root: string): Promise<void> {
  await run('find', [
    root,
    '-depth',
    '-exec',
    'touch',
    '--no-dereference',
    `--date=@${SOURCE_DATE_EPOCH}`,
    '{}',
    '+'
  ])
}

/**
 * Packages that a virtual machine has and this machine does not: fetched by apt, which checks them by Debian's signatures,
 * and unpacked into a cache of the tests. Nothing is installed.
 */
import { access, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { run, runAnyway } from '../../../src/base/host-program.ts'

const CACHE = join(import.meta.dirname, '../../../node_modules/.cache/slicenet')
const DEADLINE_MS = 10 * 60_000
const KERNEL = 'linux-image-cloud-amd64'

export interface Kernel {
  /** Such as `6.1.0-56-cloud-amd64`. */
  readonly release: string
  /** The file that is booted. */
  readonly image: string
  /** The directory of its modules, with lists of what needs what. */
  readonly modules: string
}

/** Fetches the kernel of Debian's that is meant for virtual machines, unless it is there. */
export async function fetchKernel(): Promise<void> {
  if (await isThere(join(CACHE, KERNEL))) return
  process.stderr.write(`fetching ${KERNEL} for the virtual machine of some tests\n`)
  let name = await namedKernel()
  if (name === undefined) {
    await run('apt-get', ['update'], { deadlineMs: DEADLINE_MS })
    name = await namedKernel()
  }
  if (name === undefined) throw new Error(`the package ${KERNEL} names no kernel`)
  await unpack(KERNEL, [name], async (root) => {
    const [release] = await readdir(join(root, 'lib/modules'))
    await run('busybox', ['depmod', '-b', root, release!])
  })
}

/** What the package depends on, whose name has the version in it. */
async function namedKernel(): Promise<string | undefined> {
  const { stdout } = await runAnyway('apt-cache', ['show', '--no-all-versions', KERNEL])
  return /^Depends: (linux-image-[^\s,]+)/m.exec(stdout)?.[1]
}

/** The kernel that was fetched. */
export async function findKernel(): Promise<Kernel> {
  const root = join(CACHE, KERNEL)
  const releases = await readdir(join(root, 'lib/modules')).catch(() => [])
  const release = releases[0]
  if (release === undefined) throw new Error('there is no kernel; run test/set-up.sh')
  return {
    release,
    image: join(root, `boot/vmlinuz-${release}`),
    modules: join(root, 'lib/modules', release)
  }
}

/** The root directory of packages that are fetched unless they are there; `name` is that of the first. */
export async function fetchPackages(name: string, others: readonly string[] = []): Promise<string> {
  if (!(await isThere(join(CACHE, name)))) await unpack(name, [name, ...others], async () => {})
  return join(CACHE, name)
}

/** What is in the cache is whole: it gets its name when it is. */
async function unpack(
  name: string,
  packages: readonly string[],
  finish: (root: string) => Promise<void>
): Promise<void> {
  await mkdir(CACHE, { recursive: true })
  const work = await mkdtemp(join(CACHE, 'new-'))
  const options = { cwd: work, deadlineMs: DEADLINE_MS }
  try {
    try {
      await run('apt-get', ['download', ...packages], options)
    } catch {
      // What the lists name may be gone from the mirror since.
      await run('apt-get', ['update'], options)
      await run('apt-get', ['download', ...packages], options)
    }
    const root = join(work, 'root')
    const archives = (await readdir(work)).filter((file) => file.endsWith('.deb'))
    for (const archive of archives) await run('dpkg-deb', ['--extract', join(work, archive), root], options)
    await finish(root)
    await rename(root, join(CACHE, name)).catch(async (error: unknown) => {
      // Somebody else may have been faster.
      if (!(await isThere(join(CACHE, name)))) throw error
    })
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false
  )
}

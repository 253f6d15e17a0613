/**
 * The disk of a virtual machine: an ext4 image, never written to, with this project's source, and the packages and host
 * programs that it uses.
 */
import { chmod, cp, glob, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { HOST_PATH, run, runAnyway } from '../../../src/base/host-program.ts'
import { findHostProgram, HOST_REQUIREMENTS } from '../../../src/enforce/host-requirements.ts'

const REPOSITORY = join(import.meta.dirname, '../../..')
/** Where the repository is in the machine. */
const WORK = '/slicenet'
/** What enforcement imports; what these need comes with them. */
const PACKAGES = ['@ipld/dag-cbor', 'koffi', 'multiformats', 'tweetnacl', 'uint8arraylist', 'valibot']
/** What enforcement and its tests run beside what enforcement requires; busybox knows fewer of their options. */
const PROGRAMS = (
  'bash cat chmod chown chroot cp du env find grep id ldd ln losetup ls mkdir mknod mkfs.ext4 mv perl rm script seq ' +
  'setpriv setsid sh sleep stat stty sync test touch true truncate'
).split(' ')
const COMPILE = ['--noEmit', 'false', '--noCheck', '--rootDir', REPOSITORY]
/** Of the compiled repository. */
const MANIFEST = {
  type: 'module',
  ava: { files: ['test/**/*.test.js'], workerThreads: false, cache: false, timeout: '20m' }
}
const DISK_BYTES = 1024 ** 3

export interface GuestDiskInit {
  /** For the image and what it is made from. */
  readonly directory: string
  /** Node packages beyond those of enforcement. */
  readonly packages?: readonly string[]
  /** Programs by the names that they get in the machine, in place of the host's OCI runtime. */
  readonly runtimes?: Readonly<Record<string, string>>
  /** Directories of libraries that these want. */
  readonly libraries?: readonly string[]
  /** Programs of this machine beyond those of enforcement. */
  readonly programs?: readonly string[]
  /** Files and directories of this machine, by their absolute paths. */
  readonly files?: readonly string[]
  /** A directory of modules, which the kernel then loads when it wants them; without it it has those that it starts with. */
  readonly modules?: string
}

/** The path of the image. */
export async function makeGuestDisk(init: GuestDiskInit): Promise<string> {
  const root = join(init.directory, 'guest')
  await layOut(root)
  await copyPrograms(root, init)
  const work = join(root, WORK)
  await mkdir(join(work, 'node_modules'), { recursive: true })
  // Taking the types out of so many files would take an emulated processor longer than all that it is to do.
  await run(
    join(REPOSITORY, 'node_modules/.bin/tsc'),
    [...COMPILE, '--project', REPOSITORY, '--outDir', work],
    {
      env: { PATH: `${dirname(process.execPath)}:${HOST_PATH}` }
    }
  )
  await finishSources(work)
  await writeFile(join(work, 'package.json'), JSON.stringify(MANIFEST))
  for (const name of await closure([...PACKAGES, ...(init.packages ?? [])])) {
    const at = join('node_modules', name)
    await cp(join(REPOSITORY, at), join(work, at), { recursive: true, dereference: true })
  }
  if (init.files !== undefined) await run('cp', ['--recursive', '--parents', ...init.files, root])
  if (init.modules !== undefined) await addModules(root, init.modules)
  const image = join(init.directory, 'guest.img')
  await run('truncate', ['--size', String(DISK_BYTES), image])
  await run('mkfs.ext4', ['-q', '-O', '^has_journal', '-d', root, image])
  await run('rm', ['--recursive', root])
  return image
}

/** What the compiler leaves out: programs in other languages, and names of our own programs in the text of others. */
async function finishSources(work: string): Promise<void> {
  for await (const path of glob('test/linux/**/*.py', { cwd: REPOSITORY })) {
    await cp(join(REPOSITORY, path), join(work, path))
  }
  for await (const path of glob('test/linux/**/*.js', { cwd: work })) {
    const text = await readFile(join(work, path), 'utf8')
    const renamed = text.replaceAll(/(new URL\('[\w./-]+)\.ts(', import\.meta\.url\))/g, '$1.js$2')
    if (renamed !== text) await writeFile(join(work, path), renamed)
  }
}

/** Puts modules where the kernel's helper looks for them, and the helper where the kernel does. */
async function addModules(root: string, modules: string): Promise<void> {
  await mkdir(join(root, 'usr/lib/modules'))
  await cp(modules, join(root, 'usr/lib/modules', basename(modules)), { recursive: true })
  await symlink((await findHostProgram('busybox'))!, join(root, 'usr/sbin/modprobe'))
}

async function layOut(root: string): Promise<void> {
  for (const directory of [
    'dev',
    'etc',
    'proc',
    'run',
    'sys',
    'tmp',
    'var',
    'usr/bin',
    'usr/sbin',
    'usr/lib',
    'usr/lib64'
  ])
    await mkdir(join(root, directory), { recursive: true })
  for (const directory of ['bin', 'sbin', 'lib', 'lib64'])
    await symlink(`usr/${directory}`, join(root, directory))
  await symlink('/tmp', join(root, 'var/tmp'))
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n')
  await writeFile(join(root, 'etc/group'), 'root:x:0:\n')
}

async function copyPrograms(root: string, init: GuestDiskInit): Promise<void> {
  const runtimes = init.runtimes ?? (await hostRuntime())
  const required = HOST_REQUIREMENTS.filter(
    ({ onlyFor, program }) => onlyFor === undefined && program !== 'runc'
  )
  const names = [...required.map(({ program }) => program), 'busybox', ...PROGRAMS, ...(init.programs ?? [])]
  const found = await Promise.all(
    names.map(async (name) => (name.startsWith('/') ? name : findHostProgram(name)))
  )
  const missing = names.filter((_, index) => found[index] === undefined)
  if (missing.length > 0) throw new Error(`this machine lacks ${missing.join(', ')}`)
  const programs = [...new Set(found as string[])]
  const libraries = new Set<string>()
  const env = { LD_LIBRARY_PATH: (init.libraries ?? []).join(':') }
  for (const program of [...programs, ...Object.values(runtimes), process.execPath]) {
    const { stdout } = await runAnyway('ldd', [program], { env })
    for (const [library] of stdout.matchAll(/\/\S+(?= \()/g)) libraries.add(library)
  }
  await run('cp', ['--dereference', '--parents', ...programs, root])
  for (const library of libraries) {
    const own = init.libraries?.find((directory) => library.startsWith(directory))
    const at = join(
      root,
      own === undefined ? library : join('usr/lib/x86_64-linux-gnu', library.slice(own.length))
    )
    await mkdir(dirname(at), { recursive: true })
    await run('cp', ['--dereference', library, at])
  }
  for (const [name, path] of Object.entries({ ...runtimes, node: process.execPath })) {
    await run('cp', ['--dereference', path, join(root, 'usr/bin', name)])
    await chmod(join(root, 'usr/bin', name), 0o755)
  }
}

async function hostRuntime(): Promise<Readonly<Record<string, string>>> {
  for (const name of ['runc', 'crun']) {
    const path = await findHostProgram(name)
    if (path !== undefined) return { [name]: path }
  }
  throw new Error('this machine lacks an OCI runtime')
}

/** Packages with all that they depend on, by their directories right below node_modules. */
async function closure(names: readonly string[]): Promise<readonly string[]> {
  const found = new Set<string>()
  const waiting = [...names]
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    const directory = join(REPOSITORY, 'node_modules', name)
    if (found.has(name) || !existsSync(directory)) continue
    found.add(name)
    // One that needs another version of something has it, with a manifest of its own, inside.
    const manifests = glob('{,node_modules/*/,node_modules/@*/*/}package.json', { cwd: directory })
    for await (const path of manifests) {
      const manifest: unknown = JSON.parse(await readFile(join(directory, path), 'utf8'))
      const { dependencies, optionalDependencies } = manifest as Record<string, object | undefined>
      waiting.push(...Object.keys({ ...dependencies, ...optionalDependencies }))
    }
  }
  return [...found]
}

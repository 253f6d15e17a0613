/**
 * What a node does from outside with the files and programs of a vserver, done by the enforcer and, as the control, by a
 * careless stand-in that takes every path as the slice laid it out.
 */
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { SlicenetError } from '../../../src/base/errors.ts'
import { run, runAnyway } from '../../../src/base/host-program.ts'
import { outputOf, vserverSpec } from '../../enforce/enforcer-contract.ts'
import { runWithDirectory } from './controls.ts'
import type { EscapeLab } from './lab.ts'

export const ACCOUNT = 'contract'
const VSERVER = 'plain'
const CONTROL = ['users', 'processes'] as const

export interface Caretaker {
  /** The vserver's root directory on the host. */
  readonly root: string
  /** The program of the host that starts programs in the vserver. */
  readonly runtime: string
  /** How long an attempt that watches goes on; where it must succeed, as long as it takes on a busy machine. */
  readonly watchSeconds: number
  /** Runs a line of shell as the slice; gives what it printed. */
  sh(line: string): Promise<string>
  /** Runs a program as the slice, and gives what it printed, or nothing where it is refused. */
  exec(argv: readonly string[], cwd?: string): Promise<string>
  /** The same by the runtime alone, without the node's own look at where the program is to start. */
  execUnseen(argv: readonly string[], cwd: string): Promise<string>
  upload(path: string, text: string): Promise<void>
  setKeys(key: string): Promise<void>
  /** Takes in an image; gives its root directory. */
  import(path: string): Promise<string | undefined>
  /** Makes a vserver of a root directory, with devices and an account; gives its list of accounts. */
  accountsOf(root: string): Promise<string>
}

/** The enforcer and its image store; a refusal is what is hoped for. */
export function enforcerAsCaretaker(lab: EscapeLab): Caretaker {
  const { enforcer, images, directory } = lab.node
  const exec = async (argv: readonly string[], cwd = '/'): Promise<string> => {
    const session = await unlessRefused(enforcer.exec(VSERVER, { argv, env: {}, cwd }))
    if (session === undefined) return ''
    await session.write(undefined)
    return (await outputOf(session)).output
  }
  return {
    root: join(directory, 'run/vservers', VSERVER, 'root'),
    runtime: lab.runtimePath,
    watchSeconds: 3,
    exec,
    execUnseen: async (argv, cwd) => {
      const state = join(directory, 'run/runtime')
      const args = ['--root', state, 'exec', '--cwd', cwd, VSERVER, ...argv]
      const { stdout, stderr } = await runAnyway(lab.runtimePath, args)
      // Where the runtime did not know the vserver, nothing was tried.
      if (/does not exist/.test(stderr)) throw new Error(stderr)
      return stdout
    },
    sh: (line) => exec(['sh', '-c', line]),
    upload: async (path, text) => {
      await unlessRefused(enforcer.upload(VSERVER, [{ path, content: Buffer.from(text), mode: 0o644 }]))
    },
    setKeys: async (key) => {
      await unlessRefused(enforcer.setKeys(VSERVER, [key]))
    },
    import: async (path) => {
      const image = await unlessRefused(images.import(path))
      return image === undefined ? undefined : images.open(image.id)
    },
    accountsOf: async (root) => {
      const id = 'accounts'
      const { id: image } = await images.import(root)
      if ((await unlessRefused(enforcer.create(vserverSpec(image, { id })))) === undefined) return ''
      try {
        const session = await enforcer.exec(id, { argv: ['cat', '/etc/passwd'], env: {} })
        await session.write(undefined)
        return (await outputOf(session)).output
      } finally {
        await enforcer.destroy(id)
      }
    }
  }
}

/** Enters the mounts of a process without making itself safe first, in a directory that it opened before. */
function carelessRuntime(): string {
  const setns = process.arch === 'x64' ? 308 : 268
  return String.raw`
    my ($pid, $cwd, @argv) = @ARGV;
    opendir(my $directory, $cwd) or die $!;
    open(my $namespace, '<', "/proc/$pid/ns/mnt") or die $!;
    syscall(${setns}, fileno $namespace, 0x20000) == 0 or die $!;
    chdir $directory if $cwd ne '/';
    exec @argv;`
}

/** The stand-in, whose runtime is a copy of perl with a few lines to run. */
export async function carelessCaretaker(lab: EscapeLab): Promise<Caretaker> {
  const { root } = lab.controls
  const scratch = await mkdtemp(join(lab.outside, 'careless-'))
  const runtime = join(scratch, 'runtime')
  await copyFile('/usr/bin/perl', runtime)
  await chmod(runtime, 0o755)
  await writeFile(join(root, 'etc/passwd'), `${ACCOUNT}:x:1000:1000::/home/${ACCOUNT}:/bin/sh\n`, {
    flag: 'a'
  })
  const put = async (path: string, text: string): Promise<void> => {
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, text)
  }
  const exec = async (argv: readonly string[], cwd = '/'): Promise<string> => {
    const pid = await lab.controls.initPid(CONTROL)
    return runWithDirectory([runtime, '-e', carelessRuntime(), String(pid), cwd, ...argv], lab.outside)
  }
  return {
    root,
    runtime,
    watchSeconds: 30,
    exec,
    execUnseen: exec,
    sh: async (line) => (await runAnyway('chroot', [root, 'sh', '-c', line])).stdout,
    upload: async (path, text) => {
      // What changes meanwhile may make it fail, as it may for the enforcer.
      await put(join(root, path), text).catch(() => {})
    },
    setKeys: async (key) => {
      const accounts = await readFile(join(root, 'etc/passwd'), 'utf8')
      const home = accounts
        .split('\n')
        .find((line) => line.startsWith(`${ACCOUNT}:`))!
        .split(':')[5]!
      await put(join(root, home, '.ssh/authorized_keys'), `${key}\n`)
    },
    import: async (path) => {
      const directory = await mkdtemp(join(scratch, 'image-'))
      await runAnyway('tar', ['--extract', '--absolute-names', '--directory', directory, '--file', path])
      return directory
    },
    accountsOf: async (image) => {
      await run('mknod', [join(image, 'dev/null'), 'c', '1', '3'])
      const passwd = join(image, 'etc/passwd')
      const accounts = await readFile(passwd, 'utf8')
      await rm(passwd)
      await writeFile(passwd, `${accounts}${ACCOUNT}:x:1000:1000::/:/bin/sh\n`)
      return run('chroot', [image, 'cat', '/etc/passwd'])
    }
  }
}

async function unlessRefused<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work
  } catch (error) {
    if (error instanceof SlicenetError) return undefined
    throw error
  }
}

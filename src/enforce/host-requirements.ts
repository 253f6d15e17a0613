/** The programs and files of the host that enforcement needs, and which are missing on this machine. */
import { access, constants } from 'node:fs/promises'
import { join } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { HOST_PATH, runAnyway } from '../base/host-program.ts'

export interface HostRequirement {
  /** A program's name, or the absolute path of a file. */
  readonly program: string
  readonly debianPackage: string
  readonly why: string
  /** Programs that do as well. */
  readonly or?: readonly string[]
  /** Without it a node works; building images, or the project's own tests, do not. */
  readonly onlyFor?: 'images' | 'tests'
}

/** The tests have one for this kind of processor. */
const VIRTUAL_MACHINE: readonly HostRequirement[] = [
  {
    program: 'qemu-system-x86_64',
    debianPackage: 'qemu-system-x86',
    why: 'runs what could harm this machine in a virtual one',
    onlyFor: 'tests'
  },
  {
    program: 'mkfs.ext4',
    debianPackage: 'e2fsprogs',
    why: 'makes the disk of that machine',
    onlyFor: 'tests'
  }
]

export const HOST_REQUIREMENTS: readonly HostRequirement[] = [
  {
    program: 'runc',
    debianPackage: 'runc',
    why: 'makes and runs vservers (OCI runtime, as is crun)',
    or: ['crun']
  },
  { program: 'conmon', debianPackage: 'conmon', why: 'keeps a launched program, its log and its exit code' },
  { program: 'catatonit', debianPackage: 'catatonit', why: 'is the init of every vserver' },
  {
    program: '/usr/share/containers/seccomp.json',
    debianPackage: 'golang-github-containers-common',
    why: 'is the list of system calls that a vserver may make'
  },
  { program: 'mkfs.btrfs', debianPackage: 'btrfs-progs', why: 'makes the disks of vservers' },
  { program: 'btrfs', debianPackage: 'btrfs-progs', why: 'makes the disks of vservers and limits them' },
  { program: 'mount', debianPackage: 'mount', why: 'mounts the disks of vservers' },
  { program: '/usr/bin/prlimit', debianPackage: 'util-linux', why: 'limits what the OCI runtime may open' },
  { program: 'unshare', debianPackage: 'util-linux', why: 'makes user namespaces' },
  { program: 'nsenter', debianPackage: 'util-linux', why: 'addresses the link inside a vserver' },
  { program: 'tar', debianPackage: 'tar', why: 'packs and unpacks images' },
  { program: 'mmdebstrap', debianPackage: 'mmdebstrap', why: 'builds the Debian image', onlyFor: 'images' },
  {
    program: 'busybox',
    debianPackage: 'busybox-static',
    why: 'is the busybox image, and waits in vservers to become their program',
    onlyFor: 'images'
  },
  { program: 'nft', debianPackage: 'nftables', why: 'holds the source check, owned ports and flow log' },
  { program: 'ip', debianPackage: 'iproute2', why: 'makes the links of vservers' },
  { program: 'tc', debianPackage: 'iproute2', why: 'shapes what vservers send' },
  { program: 'conntrack', debianPackage: 'conntrack', why: 'forgets the flows of a lease that ended' },
  {
    program: 'python3',
    debianPackage: 'python3',
    why: 'sends and sniffs packets in the tests',
    onlyFor: 'tests'
  },
  { program: 'ping', debianPackage: 'iputils-ping', why: 'reaches hosts in the tests', onlyFor: 'tests' },
  {
    program: 'ssh',
    debianPackage: 'openssh-client',
    why: 'logs in to vservers in the tests',
    onlyFor: 'tests'
  },
  ...(process.arch === 'x64' ? VIRTUAL_MACHINE : [])
]

/** Those of `requirements` that this machine lacks. */
export async function missingHostPrograms(
  requirements: readonly HostRequirement[] = HOST_REQUIREMENTS
): Promise<HostRequirement[]> {
  const present = await Promise.all(
    requirements.map(async ({ program, or = [] }) => {
      const found = await Promise.all([program, ...or].map(isPresent))
      return found.includes(true)
    })
  )
  return requirements.filter((_, index) => present[index] !== true)
}

/** Throws `HOST_PROGRAM_MISSING` naming all that a node needs and this machine lacks. */
export async function requireHostPrograms(): Promise<void> {
  const missing = await missingHostPrograms(HOST_REQUIREMENTS.filter(({ onlyFor }) => onlyFor === undefined))
  if (missing.length === 0) return
  const names = missing.map(({ program }) => program).join(', ')
  throw new SlicenetError('HOST_PROGRAM_MISSING', `this machine lacks what a node needs: ${names}`, {
    details: { missing: missing.map(({ program, debianPackage, why }) => ({ program, debianPackage, why })) }
  })
}

/** The absolute path of a host program, looked for where `base/host-program.ts` looks. */
export async function findHostProgram(program: string): Promise<string | undefined> {
  for (const directory of HOST_PATH.split(':')) {
    const path = join(directory, program)
    if (await canAccess(path, constants.X_OK)) return path
  }
  return undefined
}

/** Whether a program needs no libraries of the host, and so runs in an otherwise empty root. */
export async function isStatic(program: string): Promise<boolean> {
  const said = await runAnyway('ldd', [program])
  return said.exitCode !== 0 || /not a dynamic|statically/i.test(said.stdout + said.stderr)
}

async function isPresent(program: string): Promise<boolean> {
  if (program.startsWith('/')) return canAccess(program, constants.R_OK)
  return (await findHostProgram(program)) !== undefined
}

async function canAccess(path: string, mode: number): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false
  )
}

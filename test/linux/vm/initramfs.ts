/**
 * What the kernel of a virtual machine starts with: the modules, and a program that mounts its disk and what a machine
 * with cgroups v2 alone has mounted, and runs one program of the repository.
 */
import { chmod, cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { run } from '../../../src/base/host-program.ts'
import { findHostProgram } from '../../../src/enforce/host-requirements.ts'
import type { Kernel } from './debian-packages.ts'

/** For its disks, and for those of vservers. Nothing in the machine loads others. */
const MODULES = ['virtio_pci', 'virtio_blk', 'brd', 'loop', 'btrfs', 'overlay']

/** Loaded by nobody; it needs no other, and no hardware. */
export const SPARE_MODULE = 'nls_ascii'
/** Where that is in the machine. */
export const MODULE_PATH = '/run/module.ko'
const PARAMETERS: Readonly<Record<string, string>> = { 'brd.ko': 'rd_nr=1 rd_size=1500000' }

/** Runs as the first process, which takes over orphans. Images must lie on a file system that can be mounted idmapped. */
const START = `#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin
mkfs.ext4 -q -O ^has_journal,^resize_inode -N 32768 -E nodiscard /dev/ram0
busybox mount /dev/ram0 /tmp
busybox chmod 1777 /tmp
busybox mkdir /dev/pts /dev/shm
busybox ln -s /proc/self/fd /dev/fd
for name in stdin:0 stdout:1 stderr:2; do busybox ln -s /proc/self/fd/\${name#*:} /dev/\${name%:*}; done
busybox mount -t devpts -o ptmxmode=666 devpts /dev/pts
busybox mount -t tmpfs shm /dev/shm
busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox ip link set lo up
busybox hostname slicenet-guest
cd /slicenet
stty -F /dev/ttyS1 raw -echo
# Whatever it says that is no answer goes to the console.
export HOME=/tmp TMPDIR=/tmp
$GUEST_COMMAND < /dev/ttyS1 > /dev/ttyS1 2> /dev/console
busybox poweroff -f
`

/** Makes the archive in `directory` and gives its path. */
export async function makeInitramfs(kernel: Kernel, directory: string): Promise<string> {
  const root = join(directory, 'initramfs')
  for (const name of ['bin', 'dev', 'modules', 'proc', 'root', 'sys'])
    await mkdir(join(root, name), { recursive: true })
  await cp((await findHostProgram('busybox'))!, join(root, 'bin/busybox'))
  const modules = await inOrder(kernel, MODULES)
  for (const path of modules) await cp(join(kernel.modules, path), join(root, 'modules', basename(path)))
  const [spare] = await inOrder(kernel, [SPARE_MODULE])
  await cp(join(kernel.modules, spare!), join(root, 'module.ko'))
  await writeFile(join(root, 'start'), START)
  await chmod(join(root, 'start'), 0o755)
  await writeFile(join(root, 'init'), initOf(modules.map((path) => basename(path))))
  await chmod(join(root, 'init'), 0o755)
  const archive = join(directory, 'initramfs.cpio')
  await run('busybox', ['sh', '-c', 'find . | busybox cpio -o -H newc -F "$0"', archive], { cwd: root })
  return archive
}

function initOf(modules: readonly string[]): string {
  return `#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
${modules.map((name) => `$b insmod /modules/${name} ${PARAMETERS[name] ?? ''}`).join('\n')}
$b mount -t ext4 -o ro /dev/vda /root
$b mount -t tmpfs run /root/run
$b cp /start /module.ko /root/run
for name in proc sys dev; do $b mount -o move /$name /root/$name; done
exec $b switch_root /root /run/start
`
}

/** Files of modules with all that they need, those that are needed first. */
async function inOrder(kernel: Kernel, names: readonly string[]): Promise<readonly string[]> {
  const needs = new Map<string, readonly string[]>()
  for (const line of (await readFile(join(kernel.modules, 'modules.dep'), 'utf8')).split('\n')) {
    const [path = '', list = ''] = line.split(':')
    needs.set(path, list.trim().split(' ').filter(Boolean))
  }
  const ordered = new Set<string>()
  const add = (path: string): void => {
    if (ordered.has(path)) return
    for (const needed of needs.get(path) ?? []) add(needed)
    ordered.add(path)
  }
  for (const name of names) {
    const path = [...needs.keys()].find((candidate) => basename(candidate) === `${name}.ko`)
    if (path === undefined) throw new Error(`the kernel has no module ${name}`)
    add(path)
  }
  return [...ordered]
}

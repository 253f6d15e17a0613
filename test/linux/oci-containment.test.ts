/**
 * What contains a vserver, shown by the same attempt with and without the mechanism, wherever the attempt would harm
 * nobody if it succeeded.
 */
import { mkdir, readFile, realpath, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { run, runAnyway } from '../../src/base/host-program.ts'
import type { VserverSpec } from '../../src/enforce/enforcer.ts'
import { findHierarchies } from '../../src/enforce/cgroup.ts'
import { outputOf, SMALL, vserverSpec } from '../enforce/enforcer-contract.ts'
import { OciNode } from './oci-node.ts'

const MIB = 1024 * 1024
let node: OciNode

test.before(async () => {
  node = await OciNode.start()
})

test.afterEach.always(async () => {
  for (const { id } of await node.enforcer.list()) await node.enforcer.destroy(id)
})

test.after.always(async () => {
  await node?.stop()
})

async function make(id: string, over: Partial<VserverSpec> = {}): Promise<string> {
  await node.enforcer.create(vserverSpec(node.image, { id, ...over }))
  return id
}

async function sh(id: string, script: string): Promise<{ output: string; exitCode: number }> {
  const session = await node.enforcer.exec(id, { argv: ['sh', '-c', script], env: {} })
  await session.write(undefined)
  return outputOf(session)
}

async function initPid(id: string): Promise<string> {
  return String((await node.enforcer.status(id))!.pid)
}

/** Runs a program in all of a vserver's namespaces, but not under its system call filter. */
function unfiltered(pid: string, ...argv: string[]): ReturnType<typeof runAnyway> {
  return runAnyway('nsenter', ['--target', pid, '--user', '--mount', '--pid', '--net', '--root', ...argv])
}

test.serial('a program is killed at the memory limit, and runs where the limit is higher', async (t) => {
  const small = await make('small', { resources: { ...SMALL, memoryBytes: 32 * MIB } })
  const large = await make('large', { resources: { ...SMALL, memoryBytes: 256 * MIB } })
  const allocate = 'dd if=/dev/zero of=/dev/null bs=100M count=1'
  t.is((await sh(small, `${allocate}; exit $?`)).exitCode, 137)
  t.is((await sh(large, allocate)).exitCode, 0)
  // Only what broke the limit was killed.
  t.is((await node.enforcer.status(small))?.state, 'created')
  // Files in shared memory count as well.
  t.not((await sh(small, 'dd if=/dev/zero of=/dev/shm/x bs=1M count=100')).exitCode, 0)
  t.is((await sh(large, 'dd if=/dev/zero of=/dev/shm/x bs=1M count=100')).exitCode, 0)
})

test.serial('forks stop at the limit of processes, and go on where it is higher', async (t) => {
  const few = await make('few', { resources: { ...SMALL, pids: 16 } })
  const many = await make('many', { resources: { ...SMALL, pids: 200 } })
  const forks = 'i=0; while [ $i -lt 60 ]; do sleep 5 >/dev/null 2>&1 & i=$((i+1)); done; echo all of them'
  const stopped = await sh(few, forks)
  t.not(stopped.exitCode, 0)
  t.regex(stopped.output, /fork/)
  t.regex((await sh(many, forks)).output, /all of them/)
})

test.serial('a write stops at the disk quota, and goes on where it is higher', async (t) => {
  const small = await make('small', { resources: { ...SMALL, diskBytes: 20 * MIB } })
  const large = await make('large', { resources: { ...SMALL, diskBytes: 200 * MIB } })
  const write = 'dd if=/dev/zero of=/file bs=1M count=60 2>&1'
  t.regex((await sh(small, write)).output, /quota exceeded/i)
  t.is((await sh(large, write)).exitCode, 0)
  // From outside as well.
  const content = new Uint8Array(128 * 1024).fill(1)
  const upload = async (id: string): Promise<void> => {
    for (let n = 0; n < 64; n++) await node.enforcer.upload(id, [{ path: `/f${n}`, content, mode: 0o644 }])
  }
  await t.throwsAsync(upload(small), { code: 'QUOTA_EXCEEDED' })
  await t.notThrowsAsync(upload(large))
  // A file that is not yet full refuses in the middle of a write.
  await sh(small, 'rm -f /f* /file; dd if=/dev/zero of=/file bs=1k count=20420 2>/dev/null')
  const one = node.enforcer.upload(small, [{ path: '/last', content, mode: 0o644 }])
  await t.throwsAsync(one, { code: 'QUOTA_EXCEEDED' })
})

test.serial(
  'a busy program is held to its share of the processor, and not where the cap is higher',
  async (t) => {
    const slow = await make('slow', { resources: { ...SMALL, cpuMillis: 50, cpuMillisMax: 50 } })
    const fast = await make('fast', { resources: { ...SMALL, cpuMillisMax: 64_000 } })
    const busy = 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'
    await sh(slow, busy)
    await sh(fast, busy)
    t.true((await throttled(slow)) > 0)
    t.is(await throttled(fast), 0)
  }
)

async function throttled(id: string): Promise<number> {
  const hierarchies = findHierarchies(await readFile('/proc/self/mountinfo', 'utf8'))
  const tree = hierarchies.find(({ controllers }) => controllers.includes('cpu')) ?? hierarchies[0]!
  const table = await readFile(join(tree.directory, `slicenet-${node.nodeShort}`, id, 'cpu.stat'), 'utf8')
  return Number(/^nr_throttled (\d+)$/m.exec(table)?.[1])
}

test.serial('root inside is nobody on the host, in processes and in files', async (t) => {
  const id = await make('mapped')
  const pid = await initPid(id)
  const [, outside, count] = (await readFile(`/proc/${pid}/uid_map`, 'utf8')).trim().split(/\s+/).map(Number)
  t.true(outside! >= node.uidBase && outside! < node.uidBase + 512 * 65_536)
  t.is(count, 65_536)
  t.regex(await readFile(`/proc/${pid}/status`, 'utf8'), new RegExp(String.raw`^Uid:\s+${outside}\s`, 'm'))
  t.is((await sh(id, 'id -u; echo x > /made; stat -c %u /made /bin/busybox')).output, '0\n0\n0\n')
  const root = join(node.directory, 'run/vservers', id, 'root')
  t.is((await stat(join(root, 'made'))).uid, outside!)
  t.is((await stat(join(root, 'bin/busybox'))).uid, outside!)
  // The shared image keeps its owners: nothing was chowned.
  t.is((await stat(join(await node.images.open(node.image), 'bin/busybox'))).uid, 0)
  // A file of the host's root is nobody's inside, and cannot be changed.
  t.is((await sh(id, 'stat -c %u /.slicenet/init')).output, '65534\n')
  t.not((await sh(id, 'echo x > /.slicenet/init')).exitCode, 0)
  t.not((await sh(id, 'rm -f /.slicenet/init')).exitCode, 0)
})

test.serial('set-user-id programs lead to root inside', async (t) => {
  const id = await make('setuid')
  // An empty password, so that nothing but the bit is between the account and root.
  await sh(
    id,
    "sed -i 's/^root:x:/root::/' /etc/passwd; cp /bin/busybox /bin/busybox2; ln -sf busybox2 /bin/su"
  )
  const become = async (): Promise<string> => {
    const argv = ['su', '-c', 'id -u']
    const session = await node.enforcer.exec(id, { argv, env: {}, user: 'contract' })
    return (await outputOf(session)).output.trim()
  }
  t.not(await become(), '0')
  await sh(id, 'chmod 4755 /bin/busybox2')
  t.is(await become(), '0')
})

test.serial('no namespace is made inside, which the system call filter alone prevents', async (t) => {
  const id = await make('filtered')
  const pid = await initPid(id)
  t.not((await sh(id, 'unshare -U true')).exitCode, 0)
  t.is((await unfiltered(pid, '/bin/unshare', '-U', 'true')).exitCode, 0)
  // Ordinary programs and threads start all the same.
  t.is((await sh(id, 'true | cat')).exitCode, 0)
})

test.serial('raw sockets need the right', async (t) => {
  const plain = await make('plain')
  const raw = await make('raw', { rights: ['raw-socket'] })
  // Busybox's ping knows no other kind of socket, arping sends below IP.
  t.regex((await sh(plain, 'ping -c 1 127.0.0.1 2>&1')).output, /permission denied/)
  t.is((await sh(raw, 'ping -c 1 127.0.0.1')).exitCode, 0)
  t.regex((await sh(plain, 'arping -I lo -c 1 127.0.0.1 2>&1')).output, /not permitted/)
  t.notRegex((await sh(raw, 'arping -I lo -w 1 -c 1 127.0.0.1 2>&1')).output, /not supported|permitted/)
})

test.serial('devices, mounts and kernel settings are out of reach', async (t) => {
  const id = await make('weak')
  const attempts = {
    device: 'mknod /tmp/n c 1 3',
    mount: 'mount -t tmpfs none /tmp',
    setting: 'echo 1 > /proc/sys/net/ipv4/ip_forward'
  }
  for (const [name, attempt] of Object.entries(attempts)) {
    t.not((await sh(id, attempt)).exitCode, 0, name)
    // The host's root succeeds at the same thing, in namespaces where it harms nobody.
    const script = `mount -t tmpfs none /tmp && ${attempt}`
    t.is((await runAnyway('unshare', ['--mount', '--net', 'sh', '-c', script])).exitCode, 0, name)
  }
})

test.serial('what would harm the whole machine is refused', async (t) => {
  const id = await make('harmless')
  t.not((await sh(id, 'echo h > /proc/sysrq-trigger')).exitCode, 0)
  t.regex((await sh(id, 'date -s @$(date +%s) 2>&1')).output, /not permitted/)
  t.not((await sh(id, 'head -c 1 /proc/kmsg')).exitCode, 0)
})

test.serial('links that a slice lays out lead no upload and no key out of its root', async (t) => {
  const outside = join(node.directory, 'outside')
  await mkdir(outside)
  const id = await make('links')
  const up = '../'.repeat(20)
  await sh(id, `ln -s ${outside} /absolute; ln -s ${up}${outside} /relative`)
  await sh(id, `rm -rf /home/contract/.ssh; ln -s ${outside} /home/contract/.ssh`)
  await sh(id, `mkdir -p ${outside}`)
  for (const link of ['absolute', 'relative', 'home/contract/.ssh']) {
    await node.enforcer.upload(id, [{ path: `/${link}/file`, content: Buffer.from('x'), mode: 0o600 }])
  }
  await node.enforcer.setKeys(id, ['ssh-ed25519 AAAA x'])
  t.deepEqual(await run('find', [outside, '-mindepth', '1']), '')
  t.is((await sh(id, `ls ${outside}`)).output, 'authorized_keys\nfile\n')
  // A write that follows links as the host sees them does get out.
  await writeFile(join(node.directory, 'run/vservers', id, 'root/absolute/naive'), 'x')
  t.is(await run('find', [outside, '-mindepth', '1', '-printf', '%f']), 'naive')
})

test.serial('links in an image lead nothing of the host into a vserver', async (t) => {
  const secret = join(node.directory, 'secret')
  await writeFile(secret, 'root:x:0:0:secret of the host:/root:/bin/sh\n')
  const root = join(node.directory, 'evil')
  await run('cp', ['--archive', await node.images.open(node.image), root])
  await run('rm', [join(root, 'etc/passwd'), join(root, 'etc/group')])
  await symlink(secret, join(root, 'etc/passwd'))
  await run('mkfifo', [join(root, 'etc/group')])
  const { id: image } = await node.images.import(root)
  const id = await make('evil', { image })
  t.notRegex((await sh(id, 'cat /etc/passwd')).output, /secret/)
  t.regex(await readFile(await realpath(join(await node.images.open(image), 'etc/passwd')), 'utf8'), /secret/)
})

test.serial(
  'images are shared: a vserver takes almost nothing, and changes nothing of the image',
  async (t) => {
    const id = await make('thin')
    t.true((await node.enforcer.usage(id)).diskBytes < MIB)
    await sh(id, 'echo changed > /bin/busybox-2; rm -f /bin/vi; echo x >> /etc/group')
    t.true(await node.images.verify(node.image))
  }
)

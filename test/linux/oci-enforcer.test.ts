import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { run, runAnyway } from '../../src/base/host-program.ts'
import { collect, enforcerContract, outputOf, SMALL, vserverSpec } from '../enforce/enforcer-contract.ts'
import { OciNode } from './oci-node.ts'

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

enforcerContract(test, {
  enforcer: () => node.enforcer,
  image: () => node.image,
  restart: () => node.restart(),
  settle: () => node.settle()
})

async function sh(id: string, script: string, user?: string): Promise<{ output: string; exitCode: number }> {
  const program = { argv: ['sh', '-c', script], env: {}, ...(user === undefined ? {} : { user }) }
  const session = await node.enforcer.exec(id, program)
  await session.write(undefined)
  return outputOf(session)
}

test.serial(
  'destroy leaves no process, mount, group, file or link, and what it left would be seen',
  async (t) => {
    const spec = vserverSpec(node.image)
    await node.enforcer.create(spec)
    await node.enforcer.launch(spec.id, { argv: ['sleep', '1000'], env: {} })
    for (const [kind, found] of Object.entries(await node.remains(spec.id))) t.true(found.length > 0, kind)
    await node.enforcer.destroy(spec.id)
    for (const [kind, found] of Object.entries(await node.remains(spec.id))) t.deepEqual(found, [], kind)
  }
)

test.serial('a vserver whose network refuses it leaves nothing on the host', async (t) => {
  const ports = [{ protocol: 'tcp' as const, first: 80, last: 80 }]
  const first = vserverSpec(node.image, { id: 'owner', ports })
  const second = vserverSpec(node.image, { id: 'refused', ports })
  await node.enforcer.create(first)
  await t.throwsAsync(node.enforcer.create(second), { code: 'PORT_IN_USE' })
  for (const [kind, found] of Object.entries(await node.remains(second.id))) t.deepEqual(found, [], kind)
  await node.enforcer.destroy(first.id)
  // Its ids and its port are free again.
  t.is((await node.enforcer.create(second)).state, 'created')
  await node.enforcer.destroy(second.id)
})

test.serial('a create that is aborted half-way leaves nothing on the host', async (t) => {
  const spec = vserverSpec(node.image, { id: 'aborted' })
  const controller = new AbortController()
  const made = node.enforcer.create(spec, { signal: controller.signal })
  setTimeout(() => controller.abort(new Error('no longer wanted')), 15)
  await t.throwsAsync(made, { message: 'no longer wanted' })
  for (const [kind, found] of Object.entries(await node.remains(spec.id))) t.deepEqual(found, [], kind)
})

test.serial(
  'a vserver that lost its processes has failed, and create brings it back with its files',
  async (t) => {
    const spec = vserverSpec(node.image, { id: 'rebooted' })
    const before = await node.enforcer.create(spec)
    await sh(spec.id, 'echo kept > /root/file')
    process.kill(before.pid!, 'SIGKILL')
    while ((await node.enforcer.status(spec.id))?.state !== 'failed')
      await new Promise((r) => setTimeout(r, 5))
    await node.restart()
    t.is((await node.enforcer.status(spec.id))?.state, 'failed')
    const after = await node.enforcer.create(spec)
    t.is(after.state, 'created')
    t.not(after.pid, before.pid)
    t.is((await sh(spec.id, 'cat /root/file')).output, 'kept\n')
    await node.enforcer.destroy(spec.id)
    for (const [kind, found] of Object.entries(await node.remains(spec.id))) t.deepEqual(found, [], kind)
  }
)

test.serial(
  'the image of a vserver cannot be removed until that is gone, whether a daemon runs or not',
  async (t) => {
    const { images } = node
    const root = join(node.directory, 'own-root')
    await run('cp', ['--archive', await images.open(node.image), root])
    await writeFile(join(root, 'own'), 'own')
    const { id: image } = await images.import(root, { isFetched: true })
    const spec = vserverSpec(image, { id: 'user' })
    await node.enforcer.create(spec)
    await node.enforcer.stop()
    await t.throwsAsync(images.remove(image), { code: 'IN_USE', message: /vserver user/ })
    t.deepEqual(await images.evict({ bytesMax: 0 }), [])
    await node.restart()
    t.is((await sh(spec.id, 'cat /own; busybox true && echo runs')).output, 'ownruns\n')
    await node.enforcer.destroy(spec.id)
    t.deepEqual(await images.evict({ bytesMax: 0 }), [image])
    t.false(await images.has(image))
    // What it shared with others is theirs still.
    t.true(await images.verify(node.image))
  }
)

test.serial('what a crash half-made is listed as failed and can be destroyed', async (t) => {
  const spec = vserverSpec(node.image, { id: 'half-made' })
  await node.enforcer.create(spec)
  await node.enforcer.stop()
  const path = join(node.directory, 'state/vservers', `${spec.id}.json`)
  const { pid, address, ...record } = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>
  t.truthy(pid)
  t.truthy(address)
  await writeFile(path, JSON.stringify({ ...record, phase: 'making' }))
  await node.restart()
  t.is((await node.enforcer.status(spec.id))?.state, 'failed')
  await node.enforcer.destroy(spec.id)
  for (const [kind, found] of Object.entries(await node.remains(spec.id))) t.deepEqual(found, [], kind)
})

test.serial('what no record speaks of is swept at start', async (t) => {
  const spec = vserverSpec(node.image, { id: 'unknown' })
  await node.enforcer.create(spec)
  await node.enforcer.stop()
  await rm(join(node.directory, 'state/vservers', `${spec.id}.json`))
  await node.restart()
  t.deepEqual(await node.enforcer.list(), [])
  for (const [kind, found] of Object.entries(await node.remains(spec.id))) t.deepEqual(found, [], kind)
})

test.serial('a program that ends while no daemon runs has its exit code and log after', async (t) => {
  const spec = vserverSpec(node.image, { id: 'unattended' })
  await node.enforcer.create(spec)
  const script = 'while [ ! -e /go ]; do sleep 0.02; done; echo went; exit 7'
  await node.enforcer.launch(spec.id, { argv: ['sh', '-c', script], env: {} })
  const root = join(node.directory, 'run/vservers', spec.id, 'root')
  await node.enforcer.stop()
  await writeFile(join(root, 'go'), '')
  const exitFile = join(node.directory, 'state/programs', spec.id, 'exit', spec.id)
  while ((await runAnyway('test', ['-s', exitFile])).exitCode !== 0)
    await new Promise((r) => setTimeout(r, 10))
  await node.restart()
  t.is((await node.enforcer.status(spec.id))?.exit?.exitCode, 7)
  t.is(await collect(node.enforcer.logs(spec.id)), 'went\n')
  await node.enforcer.destroy(spec.id)
})

test.serial('the log of a program that never stops talking stays within its bound', async (t) => {
  const spec = vserverSpec(node.image, { id: 'talker' })
  await node.enforcer.create(spec)
  const script =
    'dd if=/dev/zero bs=1M count=12 2>/dev/null | tr "\\\\0" x | fold -w 1000; echo; echo the end'
  await node.enforcer.launch(spec.id, { argv: ['sh', '-c', script], env: {} })
  const followed = await collect(node.enforcer.logs(spec.id, { follow: true }))
  t.true(followed.endsWith('the end\n'))
  const kept = await collect(node.enforcer.logs(spec.id))
  t.true(kept.endsWith('the end\n'))
  t.true(kept.length <= 4 * 1024 * 1024)
  await node.enforcer.destroy(spec.id)
})

test.serial('the account has the keys, and only they who are given last', async (t) => {
  const spec = vserverSpec(node.image, {
    id: 'keys',
    slice: 'princeton.codeen',
    keys: ['ssh-ed25519 AAAA one']
  })
  await node.enforcer.create(spec)
  const account = 'princeton_codeen'
  const read = async (): Promise<string> => (await sh(spec.id, 'cat ~/.ssh/authorized_keys', account)).output
  t.is(await read(), 'ssh-ed25519 AAAA one\n')
  await node.enforcer.setKeys(spec.id, ['ssh-ed25519 AAAA two'])
  t.is(await read(), 'ssh-ed25519 AAAA two\n')
  t.is((await sh(spec.id, 'hostname; id -un; pwd', account)).output, `princeton.codeen\n${account}\n/\n`)
  t.is((await sh(spec.id, 'id -u; id -g', '1234:5678')).output, '1234\n5678\n')
  await t.throwsAsync(sh(spec.id, 'true', 'nobody-knows'), { code: 'NOT_FOUND' })
  await node.enforcer.destroy(spec.id)
})

test.serial('a program that cannot be run where it is says so', async (t) => {
  const spec = vserverSpec(node.image, { id: 'unrunnable' })
  await node.enforcer.create(spec)
  const content = Buffer.from('#!/no/such/interpreter\n')
  await node.enforcer.upload(spec.id, [{ path: '/opt/script', content, mode: 0o755 }])
  // The file is there, so that only running it shows that nothing can interpret it.
  await node.enforcer.launch(spec.id, { argv: ['/opt/script'], env: {} })
  t.regex(await collect(node.enforcer.logs(spec.id, { follow: true })), /no such file/i)
  t.not((await node.enforcer.status(spec.id))?.exit?.exitCode, 0)
  for (const cwd of ['/nowhere', '/proc/self/fd', '/bin/sh']) {
    const program = { argv: ['true'], env: {}, cwd }
    await t.throwsAsync(node.enforcer.exec(spec.id, program), { code: 'NOT_FOUND' }, cwd)
  }
  const program = { argv: ['pwd'], env: {}, cwd: '/opt' }
  t.is((await outputOf(await node.enforcer.exec(spec.id, program))).output, '/opt\n')
})

test.serial('the volume is let go with its loop device', async (t) => {
  const other = await OciNode.start()
  const file = join(other.directory, 'state/volume.img')
  t.regex(await run('losetup', ['--associated', file]), /loop/)
  await other.stop()
  t.is(await run('losetup', ['--all']).then((all) => all.includes(file)), false)
})

test.serial('several vservers are made at the same time', async (t) => {
  const specs = [1, 2, 3, 4, 5, 6].map((n) => vserverSpec(node.image, { id: `many-${n}`, resources: SMALL }))
  const made = await Promise.all(specs.map((spec) => node.enforcer.create(spec)))
  t.true(made.every(({ state }) => state === 'created'))
  const bases = await Promise.all(
    made.map(async ({ pid }) => (await readFile(`/proc/${pid}/uid_map`, 'utf8')).trim().split(/\s+/)[1])
  )
  t.is(new Set(bases).size, specs.length)
  await Promise.all(specs.map(({ id }) => node.enforcer.destroy(id)))
  t.deepEqual(await node.enforcer.list(), [])
})

test.serial(
  'a start that fails leaves nothing mounted, but keeps the disks of vservers that run',
  async (t) => {
    const other = await OciNode.start()
    const mounts = async (): Promise<string[]> =>
      (await readFile('/proc/self/mountinfo', 'utf8'))
        .split('\n')
        .filter((line) => line.includes(other.directory))
    try {
      t.true((await mounts()).length > 0, 'mounts are seen')
      const { id } = await other.enforcer.create(vserverSpec(other.image))
      const list = other.network.list.bind(other.network)
      const fail = async (): Promise<never> => {
        throw new Error('no network')
      }
      other.network.list = fail
      await t.throwsAsync(other.restart(), { message: 'no network' })
      t.true((await mounts()).length > 0, 'a vserver runs')
      other.network.list = list
      await other.restart()
      await other.enforcer.destroy(id)
      other.network.list = fail
      await t.throwsAsync(other.restart(), { message: 'no network' })
      t.deepEqual(await mounts(), [])
      other.network.list = list
      await other.restart()
    } finally {
      await other.stop()
    }
  }
)

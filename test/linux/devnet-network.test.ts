import { once } from 'node:events'
import { mkdir, readdir, rm, rmdir } from 'node:fs/promises'
import test from 'ava'
import { run, runAnyway, start } from '../../src/base/host-program.ts'
import { createDevnetNetwork } from '../../src/daemon/devnet-network.ts'
import { devnetLeftovers } from '../../src/daemon/devnet-leftovers.ts'
import { ownDirectory, ownName } from './own-names.ts'

async function runOn(argv: readonly string[], input?: string): Promise<string> {
  const [program = '', ...args] = argv
  return run(program, args, input === undefined ? {} : { input })
}

test('eight hosts reach each other through the router and nothing of it is in the machine’s own namespace', async (t) => {
  const hosts = Array.from({ length: 8 }, (_, index) => `h${index}`)
  const network = createDevnetNetwork({ name: ownName('a'), hosts })
  const before = await run('ip', ['-o', 'link'])
  try {
    const began = performance.now()
    await network.up()
    t.log(`up: ${Math.round(performance.now() - began)} ms for 8 hosts`)
    await t.throwsAsync(network.up(), { code: 'NAME_TAKEN' })
    t.is(await run('ip', ['-o', 'link']), before)
    await runOn([...network.enter('h0'), 'ping', '-c1', '-W2', network.address('h7')])
    await runOn([...network.enter('h7'), 'ping', '-c1', '-W2', '127.0.0.1'])
    t.regex(await runOn([...network.enter('h3'), 'ip', 'route']), /^default via 198\.18\.4\.1 dev up0/m)
    t.true((await devnetLeftovers(ownName('a'))).some((left) => left.kind === 'namespace'))
  } finally {
    const began = performance.now()
    await network.down()
    t.log(`down: ${Math.round(performance.now() - began)} ms`)
  }
  await network.down()
  t.deepEqual(await devnetLeftovers(ownName('a')), [])
})

test('a program on a host sees the machine’s cgroups', async (t) => {
  const network = createDevnetNetwork({ name: ownName('b'), hosts: ['one'] })
  try {
    await network.up()
    const inside = await runOn([...network.enter('one'), 'ls', '/sys/fs/cgroup'])
    t.deepEqual(inside.trim().split('\n').sort(), (await readdir('/sys/fs/cgroup')).sort())
  } finally {
    await network.down()
  }
})

test('after a crash the name alone is enough to end what runs and remove what is left', async (t) => {
  const network = createDevnetNetwork({ name: ownName('c'), hosts: ['one', 'two'] })
  try {
    await network.up()
    const [, ...args] = [...network.enter('two'), 'sleep', '60']
    const sleeper = start('nsenter', args, 'ignore')
    const ended = once(sleeper, 'exit')
    await t.notThrowsAsync(async () => {
      for (let round = 0; round < 100; round++) {
        const left = await devnetLeftovers(ownName('c'))
        if (left.some((each) => each.kind === 'process' && each.name.includes('sleep'))) return
      }
      throw new Error('the process is not listed')
    })
    // One namespace has lost its mount, as when the machine's power failed between two steps.
    await run('umount', [`/run/netns/slicenet-${ownName('c')}-one`])
    await createDevnetNetwork({ name: ownName('c'), hosts: [] }).down()
    await ended
    t.is(sleeper.signalCode, 'SIGKILL')
    t.deepEqual(await devnetLeftovers(ownName('c')), [])
  } finally {
    await network.down()
  }
})

test('cgroups and mounts of a devnet’s name are listed as left', async (t) => {
  const group = `/sys/fs/cgroup/pids/slicenet-${ownName('e')}-one`
  const directory = await ownDirectory('e')
  try {
    await mkdir(group)
    await run('mount', ['-t', 'tmpfs', 'none', directory])
    const left = await devnetLeftovers(ownName('e'))
    t.deepEqual(left, [
      { kind: 'mount', name: directory },
      { kind: 'cgroup', name: group }
    ])
    t.deepEqual(await devnetLeftovers('other'), [])
    t.deepEqual(await devnetLeftovers('other', { directories: [directory] }), [
      { kind: 'mount', name: directory }
    ])
  } finally {
    await runAnyway('umount', [directory])
    await rm(directory, { recursive: true })
    await rmdir(group)
  }
  t.deepEqual(await devnetLeftovers(ownName('e')), [])
})

test('an up that fails half-way leaves nothing', async (t) => {
  const taken = `slicenet-${ownName('d')}-two`
  const network = createDevnetNetwork({ name: ownName('d'), hosts: ['one', 'two'] })
  // The second host's namespace appears between the look and the making.
  const racing = network.up()
  await runAnyway('ip', ['netns', 'add', taken])
  await racing.then(
    () => t.log('the devnet was quicker'),
    (error: Error) => t.log(error.message)
  )
  await network.down()
  t.deepEqual(await devnetLeftovers(ownName('d')), [])
})

test('names that could reach another devnet’s namespaces are refused', (t) => {
  for (const [devnet, hosts] of [
    ['a-b', ['one']],
    ['', ['one']],
    ['../x', ['one']],
    ['a', ['router']],
    ['a', ['one', 'one']],
    ['a', ['x/y']]
  ] as const) {
    t.throws(() => createDevnetNetwork({ name: devnet, hosts }), { code: 'CONFIG_INVALID' })
  }
})

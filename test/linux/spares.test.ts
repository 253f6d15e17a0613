/** Vservers made ahead with real containers: who gets one has what was leased and nothing else, and none is left behind. */
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import test from 'ava'
import type { SlicenetError } from '../../src/base/errors.ts'
import { HOST_PROGRAM_CHANNEL, type HostProgramEvent } from '../../src/base/host-program.ts'
import type { ProgramSpec } from '../../src/enforce/enforcer.ts'
import { outputOf, SMALL, vserverSpec } from '../enforce/enforcer-contract.ts'
import { OciNode } from './oci-node.ts'

const MIB = 1024 * 1024

let node: OciNode

test.before(async () => {
  node = await OciNode.start({ spares: 1 })
})

test.afterEach.always(async () => {
  for (const { id } of await node.enforcer.list()) await node.enforcer.destroy(id)
})

test.after.always(async () => {
  await node?.stop()
})

async function sh(id: string, script: string, { enforcer } = node): Promise<string> {
  const session = await enforcer.exec(id, { argv: ['sh', '-c', script], env: {} })
  await session.write(undefined)
  return (await outputOf(session)).output
}

/** Names of the host programs that are run meanwhile. */
async function programsRun(work: Promise<unknown>): Promise<string[]> {
  const run: string[] = []
  const note = (event: unknown): void => void run.push((event as HostProgramEvent).program)
  subscribe(HOST_PROGRAM_CHANNEL, note)
  try {
    await work
  } finally {
    unsubscribe(HOST_PROGRAM_CHANNEL, note)
  }
  return run
}

/** Waits for the one that is made ahead. */
async function spare(): Promise<string> {
  for (let tries = 0; tries < 500; tries++) {
    const taken = await Promise.all((await node.enforcer.list()).map(({ id }) => node.container(id)))
    const [found] = (await node.containers()).filter((name) => !taken.includes(name))
    if (found !== undefined && (await runsInit(found))) return found
    await delay(20)
  }
  throw new Error('nothing was made ahead')
}

async function runsInit(container: string): Promise<boolean> {
  const [group] = await node.groupFiles(container, 'cgroup.procs')
  const pids = await readFile(group ?? '', 'utf8').catch(() => '')
  const programs = await Promise.all(
    pids.split('\n').map(async (pid) => readFile(`/proc/${pid}/comm`, 'utf8').catch(() => ''))
  )
  return programs.includes('init\n')
}

/** Makes one, and waits for another to be there. */
async function primed(): Promise<string> {
  await node.enforcer.create(vserverSpec(node.image, { id: 'first' }))
  const container = await spare()
  await node.enforcer.destroy('first')
  return container
}

/** Until all its processes have ended, which each does when its turn comes. */
async function kill(container: string): Promise<void> {
  const [group] = await node.groupFiles(container, 'cgroup.procs')
  const processes = async (): Promise<string[]> =>
    (await readFile(group ?? '', 'utf8').catch(() => '')).split('\n').filter(Boolean)
  for (const pid of await processes()) {
    try {
      process.kill(Number(pid), 'SIGKILL')
    } catch {
      // With its init all of a process namespace ends.
    }
  }
  for (let tries = 0; tries < 500 && (await processes()).length > 0; tries++) await delay(10)
}

test.serial('one made ahead becomes what was leased: names, account, keys, limits, ports', async (t) => {
  const container = await primed()
  const resources = { ...SMALL, cpuMillis: 300, cpuMillisMax: 700, memoryBytes: 48 * MIB, pids: 24 }
  const over = { resources, slice: 'astronomy', keys: ['ssh-ed25519 AAAA one'] }
  const ports = [{ protocol: 'tcp' as const, first: 20_001, last: 20_001 }]
  await node.enforcer.create(vserverSpec(node.image, { ...over, id: 'ahead', ports }))
  // At once, when none waits.
  await node.enforcer.create(vserverSpec(node.image, { ...over, id: 'fresh' }))
  t.is(await node.container('ahead'), container)
  t.is(await node.container('fresh'), 'fresh')

  t.deepEqual(await node.limits('ahead'), await node.limits('fresh'))
  const look =
    'hostname; cat /etc/hostname /etc/hosts /etc/passwd; cat ~astronomy/.ssh/authorized_keys; id astronomy'
  t.is(await sh('ahead', look), await sh('fresh', look))
  t.regex(await sh('ahead', look), /^astronomy\nastronomy\n/)
  t.deepEqual(node.network.links.get('ahead')?.ports, ports)
  t.false(node.network.links.has(container))
  t.deepEqual((await node.enforcer.list()).map(({ id }) => id).sort(), ['ahead', 'fresh'])

  await node.enforcer.destroy('ahead')
  await node.enforcer.destroy('fresh')
  t.false((await node.containers()).includes(container))
})

test.serial('its programs, files, state and usage are its own', async (t) => {
  const container = await primed()
  const { id } = await node.enforcer.create(vserverSpec(node.image, { id: 'ahead' }))
  t.is(await node.container(id), container)
  await node.enforcer.upload(id, [{ path: '/tmp/hello', content: Buffer.from('hi'), mode: 0o644 }])
  await node.enforcer.launch(id, { argv: ['sh', '-c', 'cat /tmp/hello; sleep 60'], env: {} })
  t.is((await node.enforcer.status(id))?.state, 'running')
  await node.enforcer.freeze(id)
  t.true((await node.enforcer.status(id))?.isFrozen)
  await node.enforcer.thaw(id)
  await until(async () => (await node.enforcer.processes(id)).some(({ argv }) => argv.includes('60')))
  t.true((await node.enforcer.usage(id)).pids >= 2)
  await node.restart()
  t.is((await node.enforcer.status(id))?.state, 'running')
  await node.enforcer.stopProgram(id)
  await node.enforcer.destroy(id)
  t.false((await node.containers()).includes(container))
})

/** Makes one that waits for a program such as this one. */
async function ready(program: Partial<ProgramSpec> = {}): Promise<string> {
  await node.enforcer.create(vserverSpec(node.image, { id: 'first' }))
  await node.enforcer.launch('first', { argv: ['true'], env: {}, ...program })
  const container = await spare()
  const [group] = await node.groupFiles(container, 'cgroup.procs')
  await until(async () => (await commands(group!)).includes('/.slicenet/busybox'))
  await node.enforcer.destroy('first')
  return container
}

async function commands(group: string): Promise<string[]> {
  const pids = (await readFile(group, 'utf8').catch(() => '')).split('\n').filter(Boolean)
  const lines = pids.map(async (pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''))
  return (await Promise.all(lines)).map((line) => line.split('\0')[0]!)
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (await isSo()) return
    await delay(20)
  }
  throw new Error('it did not come about')
}

async function ended(id: string, { enforcer } = node): Promise<number | undefined> {
  await until(async () => (await enforcer.status(id))?.state === 'exited')
  return (await enforcer.status(id))?.exit?.exitCode
}

async function logOf(id: string, { enforcer } = node): Promise<string> {
  let text = ''
  for await (const { bytes } of enforcer.logs(id)) text += Buffer.from(bytes).toString()
  return text
}

const TELLING = `cat /proc/self/cmdline | tr '\\000' ' '; echo "$0|$#|$1|$2"; /bin/env | sort; pwd; id
  grep -E '^(Cap|Seccomp|NoNewPrivs|Groups|SigBlk|SigIgn)' /proc/self/status; ulimit -a | grep -v "open files"; ulimit -Hn; ls /proc/self/fd 2>/dev/null | wc -l
  cat /proc/self/cgroup; readlink /proc/$$/exe; readlink /proc/self/fd/0; exit 7`

test.serial('the program that was waited for is as any other', async (t) => {
  const program = {
    argv: ['sh', '-c', TELLING, 'it’s "$HOME" \\ `x`', '', ' two\nlines\t-n $(id)'],
    env: { ODD: '\'"$(id)\n\\000\u00e4 ', PATH: '/bin:/usr/bin', TERM: 'dumb' },
    cwd: '/var/tmp',
    user: 'nobody'
  }
  const container = await ready({ user: 'nobody' })
  const plain = await OciNode.start()
  t.teardown(async () => plain.stop())
  const told: string[] = []
  for (const [at, id] of [
    [node, container],
    [plain, 'next']
  ] as const) {
    await at.enforcer.create(vserverSpec(at.image, { id: 'next' }))
    t.is(await at.container('next'), id)
    const programs = async (): Promise<string> =>
      (await at.enforcer.processes('next')).map(({ argv }) => argv[0]).join()
    // What waits is none of the slice's.
    await until(async () => (await programs()) === '/.slicenet/init')
    const run = await programsRun(at.enforcer.launch('next', program))
    t.is(run.includes('conmon'), at === plain)
    t.is(await ended('next', at), 7)
    told.push(await logOf('next', at))
  }
  await node.enforcer.destroy('next')
  t.is(told[0], told[1])
  t.regex(told[0]!, /uid=65534/)
  t.regex(told[0]!, /ODD='"\$\(id\)/)
})

const PREPARED = `
mkdir -p /deep/down /here/-foo; ln -s /deep/down /link; echo 'echo ran at $(pwd)' >/plain
printf '#!\\necho ran\\n' >/empty; printf '#!/bin/lost\\n' >/lost; printf '#!/bin/sh\\necho $0 $PWD\\n' >/here/-foo/bar
head -c 16 /bin/busybox >/object; printf '\\001\\000' >>/object; tail -c +19 /bin/busybox | head -c 4000 >>/object
chmod 755 /plain /empty /lost /object /here/-foo/bar; cp /bin/busybox /deep/id; chmod 700 /root /deep; chmod 711 /deep/id`

for (const [name, program] of [
  ['another account', { argv: ['id', '-u'], user: 'nobody' }],
  ['no header', { argv: ['/plain'] }],
  ['no interpreter', { argv: ['/empty'] }],
  ['a lost interpreter', { argv: ['/lost'] }],
  ['an object', { argv: ['/object'] }],
  ['a name like an option', { argv: ['-foo/bar', '-x'], cwd: '/here' }],
  ['a directory behind a link', { argv: ['pwd'], cwd: '/link/..' }],
  ['a directory of somebody else', { argv: ['pwd'], cwd: '/root', user: 'nobody' }],
  ['a path of somebody else', { argv: ['id', '-u'], env: { PATH: '/deep:/bin' }, user: 'nobody' }],
  ['a variable of the shell', { argv: ['sh', '-c', 'echo "$OPTIND"'], env: { OPTIND: 'x' } }]
] as const) {
  test.serial(`where something waits for a program, what comes of one is as ever: ${name}`, async (t) => {
    const user = name === 'another account' || !('user' in program) ? {} : { user: program.user }
    await ready(user)
    const plain = await OciNode.start()
    t.teardown(async () => plain.stop())
    const outcomes: string[] = []
    for (const at of [node, plain]) {
      await at.enforcer.create(vserverSpec(at.image, { id: 'next' }))
      await sh('next', PREPARED, at)
      outcomes.push(await outcomeOf(at, { env: {}, ...program, argv: [...program.argv] }))
    }
    await node.enforcer.destroy('next')
    t.is(outcomes[0], outcomes[1])
    t.log(outcomes[0])
  })
}

async function outcomeOf(at: OciNode, program: ProgramSpec): Promise<string> {
  try {
    await at.enforcer.launch('next', program)
  } catch (error) {
    return (error as SlicenetError).code
  }
  return `${await ended('next', at)}: ${await logOf('next', at)}`
}

test.serial(
  'one that waits ends with the daemon, or when somebody inside ends it, and the next start is as ever',
  async (t) => {
    for (const end of ['daemon', 'inside'] as const) {
      await ready()
      await node.enforcer.create(vserverSpec(node.image, { id: 'next' }))
      const [group] = await node.groupFiles(await node.container('next'), 'cgroup.procs')
      t.true((await commands(group!)).includes('/.slicenet/busybox'), end)
      if (end === 'daemon') await node.restart()
      else await sh('next', 'kill -9 -1')
      await until(async () => !(await commands(group!)).includes('/.slicenet/busybox'))
      t.is((await node.enforcer.status('next'))?.state, 'created', end)
      await node.enforcer.launch('next', { argv: ['sh', '-c', 'echo ran'], env: {} })
      t.is(await ended('next'), 0, end)
      t.is(await logOf('next'), 'ran\n', end)
      await node.enforcer.destroy('next')
    }
  }
)

test.serial('what waits and was stopped inside keeps nobody from starting a program', async (t) => {
  await ready()
  await node.enforcer.create(vserverSpec(node.image, { id: 'next' }))
  const [group] = await node.groupFiles(await node.container('next'), 'cgroup.procs')
  t.is((await node.enforcer.usage('next')).pids, 1)
  await sh('next', 'kill -STOP -1')
  await node.enforcer.launch('next', { argv: ['sh', '-c', 'echo ran'], env: {} })
  t.is(await ended('next'), 0)
  t.is(await logOf('next'), 'ran\n')
  t.false((await commands(group!)).includes('/.slicenet/busybox'))
  await node.enforcer.destroy('next')
})

test.serial('one that fails when it is taken is replaced by a new one, and leaves nothing', async (t) => {
  const container = await primed()
  node.network.attachesToFail = 1
  await node.enforcer.create(vserverSpec(node.image, { id: 'lucky' }))
  t.not(await node.container('lucky'), container)
  t.false((await node.containers()).includes(container))
  await node.enforcer.destroy('lucky')
})

test.serial('one whose lease cannot be had leaves nothing, and the next is made as ever', async (t) => {
  const container = await primed()
  node.network.attachesToFail = Infinity
  await t.throwsAsync(node.enforcer.create(vserverSpec(node.image, { id: 'refused' })), {
    code: 'VSERVER_FAILED'
  })
  node.network.attachesToFail = 0
  t.false((await node.containers()).includes(container))
  t.is(await node.enforcer.status('refused'), undefined)
  await node.enforcer.create(vserverSpec(node.image, { id: 'next' }))
  t.is((await node.enforcer.status('next'))?.state, 'created')
  await node.enforcer.destroy('next')
})

test.serial('one that died waiting is not given to anybody', async (t) => {
  const container = await primed()
  await kill(container)
  await node.enforcer.create(vserverSpec(node.image, { id: 'lucky' }))
  t.not(await node.container('lucky'), container)
  t.false((await node.containers()).includes(container))
  await node.enforcer.destroy('lucky')
})

test.serial('one that dies while it is taken is replaced by a new one', async (t) => {
  const container = await primed()
  const rename = node.network.rename.bind(node.network)
  node.network.rename = async (id, to) => {
    await kill(container)
    await rename(id, to)
  }
  await node.enforcer.create(vserverSpec(node.image, { id: 'lucky' }))
  node.network.rename = rename
  t.not(await node.container('lucky'), container)
  t.is(await sh('lucky', 'echo runs'), 'runs\n')
  t.false((await node.containers()).includes(container))
  await node.enforcer.destroy('lucky')
})

test.serial('after a crash those that wait are removed, and one that was taken stays', async (t) => {
  const taken = await primed()
  await node.enforcer.create(vserverSpec(node.image, { id: 'kept' }))
  const waiting = await spare()
  const crashed = node.enforcer
  await node.takeOver()
  t.deepEqual(await node.containers(), [taken])
  t.not(waiting, taken)
  t.is((await node.enforcer.status('kept'))?.state, 'created')
  await node.enforcer.destroy('kept')
  t.deepEqual(await node.network.list(), [])
  await crashed.stop()
})

test.serial('a daemon that stops leaves none', async (t) => {
  await primed()
  await node.enforcer.stop()
  t.deepEqual(await node.containers(), [])
  await node.takeOver()
})

/**
 * Administrative slices as real containers (paper §4.3): what they see of the host, what they hold, and what stays shut
 * all the same. What no vserver can do at all, they among them, is in `escape/`.
 */
import { once } from 'node:events'
import { createSocket } from 'node:dgram'
import { readFile, readlink } from 'node:fs/promises'
import test from 'ava'
import { run, runAnyway, start } from '../../src/base/host-program.ts'
import { IDS_PER_VSERVER } from '../../src/enforce/id-ranges.ts'
import { CAPABILITY_RIGHTS, type CapabilityRight } from '../../src/ticket/rights.ts'
import { outputOf, SMALL, vserverSpec } from '../enforce/enforcer-contract.ts'
import { imageWithPerl } from './escape/lab.ts'
import { OciNode } from './oci-node.ts'

let node: OciNode
let image = ''

test.before(async () => {
  node = await OciNode.start()
  image = await imageWithPerl(node)
})

test.afterEach.always(async () => {
  for (const { id } of await node.enforcer.list()) await node.enforcer.destroy(id)
})

test.after.always(async () => {
  await node?.stop()
})

async function make(
  id: string,
  capabilities: readonly CapabilityRight[] = [],
  over: Partial<typeof SMALL> = {}
): Promise<string> {
  const rights = ['administrative', ...capabilities]
  await node.enforcer.create(vserverSpec(image, { id, rights, resources: { ...SMALL, ...over } }))
  return id
}

interface Said {
  readonly output: string
  readonly exitCode: number
}

async function exec(id: string, argv: readonly string[], user?: string): Promise<Said> {
  const session = await node.enforcer.exec(id, { argv, env: {}, ...(user === undefined ? {} : { user }) })
  await session.write(undefined)
  return outputOf(session)
}

const sh = async (id: string, script: string, user?: string): Promise<Said> =>
  exec(id, ['sh', '-c', script], user)
const perl = async (id: string, script: string): Promise<Said> => exec(id, ['perl', '-e', script])

/** The first host id of a vserver. */
function firstId(id: string): number {
  return node.network.users.get(id)!.firstId
}

/** The same program as a host user with the vserver's id and other capabilities, such as `+setuid`. */
async function besides(id: string, capabilities: string, argv: readonly string[]): Promise<Said> {
  const { exitCode, stdout, stderr } = await runAnyway('setpriv', [
    `--reuid=${firstId(id)}`,
    '--clear-groups',
    `--inh-caps=${capabilities}`,
    `--ambient-caps=${capabilities}`,
    ...argv
  ])
  return { exitCode, output: stdout + stderr }
}

test.serial('it sees the processes and the network of the host, and has the rest to itself', async (t) => {
  const id = await make('watch')
  await node.enforcer.create(vserverSpec(image, { id: 'plain' }))
  const namespaces = async (vserver: string): Promise<string[]> => {
    const names = ['pid', 'net', 'user', 'mnt', 'uts', 'ipc', 'cgroup']
    const said = await sh(vserver, `for n in ${names.join(' ')}; do readlink /proc/self/ns/$n; done`)
    const host = await Promise.all(names.map(async (name) => readlink(`/proc/self/ns/${name}`)))
    return names.filter((_, at) => said.output.split('\n')[at] === host[at])
  }
  t.deepEqual(await namespaces(id), ['pid', 'net', 'user'])
  t.deepEqual(await namespaces('plain'), [])
  const devices = async (vserver: string): Promise<string> => (await sh(vserver, 'ls /sys/class/net')).output
  t.is(await devices(id), `${(await run('ls', ['/sys/class/net'])).trim()}\n`)
  t.not(await devices('plain'), await devices(id))
  const marker = start('sleep', ['987'], 'ignore')
  await once(marker, 'spawn')
  try {
    const look = `tr '\\0' ' ' < /proc/${marker.pid}/cmdline`
    t.is((await sh(id, look)).output, 'sleep 987 ')
    t.not((await sh('plain', look)).output, 'sleep 987 ')
  } finally {
    marker.kill('SIGKILL')
  }
})

for (const capabilities of [[], ['cap-net-raw'], ['cap-kill', 'cap-sys-nice'], CAPABILITY_RIGHTS] as const) {
  test.serial(
    `its root holds exactly what was leased: ${capabilities.join(', ') || 'nothing'}`,
    async (t) => {
      const id = await make('held', capabilities)
      const bits = {
        'cap-kill': 5,
        'cap-net-bind-service': 10,
        'cap-net-admin': 12,
        'cap-net-raw': 13,
        'cap-sys-nice': 23,
        'cap-sys-time': 25
      }
      const mask = capabilities.reduce((sum, name) => sum | (1n << BigInt(bits[name])), 0n)
      const told = async (user?: string): Promise<string[]> =>
        (await sh(id, 'grep -E "^(Cap|NoNew|Uid)" /proc/self/status', user)).output.trim().split('\n')
      const hex = (value: bigint): string => value.toString(16).padStart(16, '0')
      const status = (uid: number, held: bigint): string[] => [
        `Uid:\t${[uid, uid, uid, uid].join('\t')}`,
        ...['Inh', 'Prm', 'Eff', 'Bnd', 'Amb'].map((set) => `Cap${set}:\t${hex(held)}`),
        'NoNewPrivs:\t1'
      ]
      const first = firstId(id)
      t.true(first >= node.uidBase)
      t.deepEqual(await told(), status(first, mask))
      t.deepEqual(await told('contract'), status(first + 1000, 0n), 'its other accounts hold none')
      t.deepEqual(await told('0:0'), status(first, mask))
      // Its init has no number that its root could signal, and holds nothing.
      const { pid } = (await node.enforcer.status(id))!
      const init = (await readFile(`/proc/${pid}/status`, 'utf8')).split('\n')
      const expected = status(first + IDS_PER_VSERVER - 1, 0n)
      t.deepEqual(
        init.filter((line) => /^(Cap|NoNew|Uid)/.test(line)),
        expected
      )
    }
  )
}

/** Listens on the loopback device below IP, says so, and tells whether a datagram with TOKEN came by. */
const LISTEN = String.raw`
  $| = 1;
  socket(my $s, 17, 3, 0x0300) or do { print "refused: $!\n"; exit 1 };
  bind($s, pack('S n l S C C a8', 17, 3, 1, 0, 0, 0, '')) or die $!;
  print "listens\n";
  $SIG{ALRM} = sub { print "nothing\n"; exit 2 };
  alarm 20;
  while (1) { recv($s, my $frame, 65535, 0); if ($frame =~ /TOKEN/) { print "captured\n"; exit 0 } }`

test.serial('it watches frames of others with cap-net-raw, and not without', async (t) => {
  const token = `slicenet-${process.pid}-frame`
  const watching = await make('watching', ['cap-net-raw'])
  const argv = ['perl', '-e', LISTEN.replace('TOKEN', token)]
  const session = await node.enforcer.exec(watching, { argv, env: {} })
  const sender = createSocket('udp4')
  let output = ''
  for await (const { bytes } of session.output) {
    output += Buffer.from(bytes).toString()
    if (output.includes('listens')) sender.send(token, 9, '127.0.0.1')
  }
  sender.close()
  t.is(output, 'listens\ncaptured\n')
  const blind = await make('blind', ['cap-kill'])
  t.regex((await exec(blind, argv)).output, /refused: (Operation not permitted|Address family not supported)/)
  // Sockets of the IP layer that set their own headers are no way to watch: none of either.
  const raw = 'socket(my $s, 2, 3, 1) or do { print "refused: $!"; exit 1 }; print "made"'
  for (const id of [watching, blind]) t.is((await perl(id, raw)).output, 'refused: Operation not permitted')
  t.is((await besides(watching, '+net_raw', ['perl', '-e', raw])).output, 'made', 'the control')
})

test.serial('it signals no process of the host without cap-kill', async (t) => {
  const marker = start('sleep', ['986'], 'ignore')
  await once(marker, 'spawn')
  const ended = once(marker, 'exit')
  const blind = await make('blind', ['cap-net-raw'])
  const attempt = `kill('TERM', ${marker.pid}) or do { print "refused: $!"; exit 1 }; print "sent"`
  t.is((await perl(blind, attempt)).output, 'refused: Operation not permitted')
  const killing = await make('killing', ['cap-kill'])
  t.is((await perl(killing, attempt)).output, 'sent')
  await ended
  t.is(marker.signalCode, 'SIGTERM')
})

test.serial('it cannot make itself root of the host, nor open what root alone may', async (t) => {
  const id = await make('climbing', CAPABILITY_RIGHTS)
  const become = '$< = 0; $> = 0; print "$< $>"'
  t.is((await perl(id, become)).output, `${firstId(id)} ${firstId(id)}`)
  t.is((await besides(id, '+setuid', ['perl', '-e', become])).output, '0 0', 'the control')
  await sh(id, 'cp /bin/busybox /bin/busybox2; chmod 4755 /bin/busybox2')
  t.is((await sh(id, '/bin/busybox2 id -u', 'contract')).output, `${firstId(id) + 1000}\n`)
  for (const file of ['environ', 'mem', 'maps', 'root/etc/shadow', 'cwd/x', 'fd/0']) {
    t.regex((await sh(id, `cat /proc/${process.pid}/${file}`)).output, /[Pp]ermission denied/, file)
  }
})

test.serial('with every capability it still sets nothing of the kernel, and mounts nothing', async (t) => {
  const id = await make('setting', CAPABILITY_RIGHTS)
  const setting = 'echo 1 > /proc/sys/net/ipv4/ip_forward'
  t.regex((await sh(id, setting)).output, /Read-only file system/)
  const argv = ['unshare', '--net', 'setpriv', `--reuid=${firstId(id)}`, '--clear-groups']
  const held = ['--inh-caps=+net_admin', '--ambient-caps=+net_admin', 'sh', '-c', setting]
  t.is((await runAnyway(argv[0]!, [...argv.slice(1), ...held])).exitCode, 0, 'the control')
  t.not((await sh(id, 'mount -t tmpfs none /tmp')).exitCode, 0)
  t.not((await sh(id, 'mknod /tmp/null c 1 3')).exitCode, 0)
  t.not((await sh(id, 'hostname other')).exitCode, 0)
})

test.serial('its root cannot end the init that it is known by, and cap-kill can', async (t) => {
  const id = await make('init')
  const { pid } = (await node.enforcer.status(id))!
  t.regex((await sh(id, `kill -9 ${pid}`)).output, /not permitted/)
  t.is((await node.enforcer.status(id))?.state, 'created')
  const other = await make('other', ['cap-kill'])
  t.is((await sh(other, `kill -9 ${(await node.enforcer.status(other))!.pid}`)).exitCode, 0)
  t.is((await node.enforcer.status(other))?.state, 'failed')
})

test.serial(
  'programs are launched, logged, attached to a terminal and stopped as in any vserver',
  async (t) => {
    const id = await make('ordinary')
    await node.enforcer.launch(id, { argv: ['sh', '-c', 'id -u; sleep 900'], env: {}, user: 'contract' })
    t.is((await node.enforcer.status(id))?.state, 'running')
    const terminal = { columns: 77, rows: 33 }
    const session = await node.enforcer.exec(id, { argv: ['stty', 'size'], env: {} }, { terminal })
    t.is((await outputOf(session)).output.trim(), '33 77')
    await node.restart()
    t.like(await node.enforcer.status(id), { state: 'running', address: '127.0.0.1' })
    t.is((await sh(id, 'echo found again')).output, 'found again\n')
    await node.enforcer.stopProgram(id)
    t.is((await node.enforcer.status(id))?.state, 'exited')
    await node.enforcer.upload(id, [{ path: '/srv/x', content: Buffer.from('uploaded'), mode: 0o644 }])
    t.is((await sh(id, 'cat /srv/x; stat -c %u /srv/x')).output, `uploaded${firstId(id)}\n`)
  }
)

test.serial('the limits are those of any vserver', async (t) => {
  const id = await make('limited')
  t.not((await sh(id, 'dd if=/dev/zero of=/x bs=1M count=100')).exitCode, 0)
  // What it leaves sleeps on: with no process left to have, nothing can be run in there but after the resize.
  const forks = 'i=0; while [ $i -lt 60 ]; do sleep 5 >/dev/null 2>&1 & i=$((i+1)); done; echo all of them'
  t.regex((await sh(id, forks)).output, /fork/)
  await node.enforcer.resize(id, { ...SMALL, pids: 200 })
  t.regex((await sh(id, forks)).output, /all of them/)
})

function endIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended meanwhile.
  }
}

test.serial('destroying it leaves nothing, though it forks as fast as it can', async (t) => {
  const id = await make('bomb', [], { pids: 64, cpuMillisMax: 200 })
  await node.enforcer.launch(id, { argv: ['perl', '-e', '$SIG{TERM} = "IGNORE"; fork while 1'], env: {} })
  while ((await node.enforcer.usage(id)).pids < 60) await new Promise((resolve) => setTimeout(resolve, 20))
  // Ending its init alone would end nothing else.
  process.kill((await node.enforcer.status(id))!.pid!, 'SIGKILL')
  t.true((await node.enforcer.usage(id)).pids > 40)
  // Nor does ending one by one whoever is there, without holding them still.
  for (let round = 0; round < 10; round++) {
    for (const { pid } of await node.enforcer.processes(id)) endIfThere(pid)
  }
  await new Promise((resolve) => setTimeout(resolve, 200))
  t.true((await node.enforcer.usage(id)).pids > 0, 'the control')
  await node.enforcer.destroy(id)
  for (const [kind, left] of Object.entries(await node.remains(id))) t.deepEqual(left, [], kind)
  t.false(node.network.users.has(id))
})

test.serial('what a crash left of one is found without its record, and taken away', async (t) => {
  const id = await make('stray')
  await node.enforcer.launch(id, { argv: ['sleep', '900'], env: {} })
  await node.enforcer.stop()
  await run('rm', [`${node.directory}/state/vservers/${id}.json`])
  await node.enforcer.start()
  t.is(await node.enforcer.status(id), undefined)
  const { keepers: _keepers, ...remains } = await node.remains(id)
  for (const [kind, left] of Object.entries(remains)) t.deepEqual(left, [], kind)
})

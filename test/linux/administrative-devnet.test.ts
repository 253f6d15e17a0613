/** An administrative slice from its description to what is noted of it, on a devnet with an administrator. */
import { cp, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { run } from '../../src/base/host-program.ts'
import type { AuditEntry } from '../../src/daemon/audit-protocol.ts'
import { devnetLeftovers } from '../../src/daemon/devnet-leftovers.ts'
import type { Outcome } from './command-line.ts'
import { SmallDevnet } from './small-devnet.ts'

/** They share one devnet, in order. */
const test = (anyTest as TestFn<undefined>).serial

const devnet = new SmallDevnet({
  letters: 'adm',
  image: async () => ['import', await watchRoot(), '--name', 'watch'],
  flags: ['--administrator']
})

const on = async (host: string, ...words: string[]): Promise<Outcome> => devnet.on(host, ...words)
let watchFile = ''
let plainFile = ''

/** A root with perl, busybox and what they want. */
async function watchRoot(): Promise<string> {
  const root = join(devnet.home, 'root')
  await mkdir(join(root, 'bin'), { recursive: true })
  await mkdir(join(root, 'etc'))
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n')
  const busybox = (await run('sh', ['-c', 'command -v busybox'])).trim()
  await cp(busybox, join(root, 'bin/busybox'))
  for (const name of ['sh', 'ls', 'grep', 'sleep']) await symlink('busybox', join(root, 'bin', name))
  const libraries = new Set((await run('ldd', ['/usr/bin/perl'])).match(/\/\S+(?= \()/g))
  await run('cp', ['--dereference', '--parents', '/usr/bin/perl', ...libraries, root])
  return root
}

test.before(async (t) => {
  t.timeout(180_000)
  await devnet.up()
  const rights = 'rights: [administrative, cap-net-raw]\nprogram: { argv: [sleep, "4321"] }\n'
  watchFile = await devnet.sliceFile('watch', 'watch', rights)
  plainFile = await devnet.sliceFile('plain', 'watch')
})

test.after.always(async () => devnet.down())

/** Prints where a frame came from that another host sent to the node over IPv4. */
const LISTEN = String.raw`
  socket(my $s, 17, 3, 0x0300) or die "refused: $!\n";
  $SIG{ALRM} = sub { die "nothing\n" };
  alarm 30;
  while (1) {
    my $from = recv($s, my $frame, 2000, 0);
    # Sent to this host, as sockaddr_ll says, and not on the loopback device.
    my (undef, undef, $device, undef, $kind) = unpack('S n l S C', $from);
    next unless $kind == 0 && $device != 1 && length $frame > 34 && substr($frame, 12, 2) eq "\x08\x00";
    print join('.', unpack('C4', substr($frame, 26, 4))), "\n";
    last;
  }`

test('an administrator gets the slice, sees the node’s devices and the frames of another host', async (t) => {
  const made = await on('administrator', 'slice', 'create', watchFile)
  t.is(made.exitCode, 0, made.stderr)
  const look = 'ls /sys/class/net; grep CapEff /proc/self/status'
  const seen = await on('administrator', 'slice', 'exec', 'watch', '--', 'sh', '-c', look)
  t.regex(seen.stdout, /^up0$/m, seen.stderr)
  t.regex(seen.stdout, /^CapEff:\s+0{12}2000$/m)
  const frames = await on('administrator', 'slice', 'exec', 'watch', '--', 'perl', '-e', LISTEN)
  t.regex(frames.stdout, /^198\.1[89]\.\d+\.2$/m, frames.stderr)
})

/** Sends a datagram to port 5353 of the address given. */
const SEND = String.raw`
  socket(my $s, 2, 2, 17) or die;
  send($s, "x", 0, pack("S n C4 x8", 2, 5353, split(/\./, $ARGV[0]))) or die "not sent: $!\n";`

test('a complaint about its packets is answered with the slice and its holder', async (t) => {
  const { stdout } = await on('agent-a', 'status', '--json')
  const victim = /\/ip4\/(198\.[\d.]+)/.exec(stdout)?.[1] ?? ''
  const sent = await on('administrator', 'slice', 'exec', 'watch', '--', 'perl', '-e', SEND, victim)
  t.is(sent.exitCode, 0, sent.stderr)
  const question = ['--time', '5s', '--address', victim, '--port', '5353', '--json']
  const answer = await on('node1', 'node', 'whois', ...question)
  t.is(answer.exitCode, 0, answer.stderr)
  const [flow] = (JSON.parse(answer.stdout) as { flows: Record<string, unknown>[] }).flows
  t.like(flow, {
    slice: 'watch',
    remoteAddress: victim,
    remotePort: 5353,
    sentPackets: 1,
    begunBy: 'vserver'
  })
  t.regex(String(flow?.['principal']), /^12D3/)
  t.regex(String(flow?.['lease']), /^bafy/)
})

test('an ordinary holder is told why it gets none, and gets an ordinary slice', async (t) => {
  const refused = await on('researcher', 'slice', 'create', watchFile)
  t.is(refused.exitCode, 3, refused.stdout)
  t.regex(refused.stderr, /NO_MATCH/)
  const explained = await on('researcher', 'explain', '--slice', watchFile)
  t.is(explained.exitCode, 3)
  t.regex(explained.stdout, /administrative slices for 12D3/)
  const plain = await on('researcher', 'slice', 'create', plainFile)
  t.is(plain.exitCode, 0, plain.stderr)
  const look = await on('researcher', 'slice', 'exec', 'plain', '--', 'sh', '-c', 'ls /sys/class/net')
  t.notRegex(look.stdout, /^up0$/m)
  t.is((await on('researcher', 'slice', 'delete', 'plain')).exitCode, 0)
})

test('the node’s administrator reads what was done and what ran', async (t) => {
  const read = async (): Promise<AuditEntry[]> => {
    const { stdout } = await on('node1', 'lease', 'audit', '--json')
    return (JSON.parse(stdout) as { entries: AuditEntry[] }).entries
  }
  const acts = async (): Promise<string[]> =>
    (await read())
      .filter(({ act }) => act !== 'process')
      .map(({ act, outcome, details }) =>
        [act, outcome, ...((details.argv ?? []) as string[]).slice(0, 2)].join(' ')
      )
  t.deepEqual(await acts(), [
    'lease begins',
    'lease done',
    'launch begins sleep 4321',
    'launch done sleep 4321',
    'exec begins sh -c',
    'exec done sh -c',
    'exec begins perl -e',
    'exec done perl -e',
    'exec begins perl -e',
    'exec done perl -e'
  ])
  const ran = (await read()).filter(({ act }) => act === 'process').map(({ details }) => details.argv)
  t.true(
    ran.some((argv) => String(argv) === 'sleep,4321'),
    JSON.stringify(ran)
  )
  t.is((await on('administrator', 'slice', 'delete', 'watch')).exitCode, 0)
  t.deepEqual((await acts()).slice(-2), ['end begins', 'end done'])
  const table = await on('node1', 'lease', 'audit', 'watch', '--last', '2')
  t.regex(table.stdout, /^TIME .*\n.* watch .* end +begins .*\n.* end +done +why: its holder gave it up\n$/)
  t.is((await on('researcher', 'lease', 'audit')).exitCode, 1, 'which is no node')
})

test('nothing is left of it', async (t) => {
  const directories = [join(devnet.home, 'devnet', devnet.name)]
  t.is((await devnet.slicenet('devnet', 'down', '--name', devnet.name)).exitCode, 0)
  t.deepEqual(await devnetLeftovers(devnet.name, { directories }), [])
})

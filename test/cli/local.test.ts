import test from 'ava'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Devnet, DevnetView } from '../../src/daemon/devnet.ts'
import { systemDoctor, type DoctorComponents } from '../../src/daemon/doctor.ts'
import { SlicenetError } from '../../src/base/errors.ts'
import type { Images } from '../../src/daemon/images.ts'
import { serveControl } from '../daemon/control-fixture.ts'
import { delegation, holderKey, NOW, ticketOf } from '../daemon/signed-objects.ts'
import { cli } from './cli-fixture.ts'

async function withHome(work: (home: string) => Promise<void>): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), 'slicenet-cli-'))
  try {
    await work(home)
  } finally {
    await rm(home, { recursive: true })
  }
}

test('keys are made once, and shown without the secret', async (t) => {
  await withHome(async (home) => {
    t.is((await cli(['keys', 'show'], { home })).exitCode, 1)
    const made = await cli(['keys', 'new'], { home })
    t.is(made.exitCode, 0)
    t.regex(made.stdout, /^12D3KooW\w{44}\n$/)
    const secret = await readFile(join(home, 'identity.key'), 'utf8')
    const again = await cli(['keys', 'new'], { home })
    t.is(again.exitCode, 1)
    t.regex(again.stderr, /code: NAME_TAKEN/)
    t.is(await readFile(join(home, 'identity.key'), 'utf8'), secret)
    t.is((await cli(['keys', 'show'], { home })).stdout, made.stdout)
    const shown = await cli(['keys', 'show', '--json'], { home })
    t.deepEqual(shown.json(), { schema: 1, principal: made.stdout.trim(), file: join(home, 'identity.key') })
  })
})

test('a ticket is shown with its fields, and one whose signature is bad is exit code 5', async (t) => {
  await withHome(async (home) => {
    const file = join(home, 'ticket')
    const ticket = ticketOf({ cpuMillis: 200 })
    await writeFile(file, Buffer.from(ticket.bytes).toString('base64'))
    const services = { now: () => NOW }
    const good = await cli(['ticket', 'inspect', file], { services })
    t.is(good.exitCode, 0)
    t.regex(
      good.stdout,
      new RegExp(`^type: +ticket\nid: +${ticket.id}\nsigner: +${ticket.body.issuer}\nsignature: +valid\n`)
    )
    t.regex(good.stdout, /\nnotAfter: +2027-01-15T08:30:00Z\n/)
    t.regex(good.stdout, /\nresources\.cpuMillis: +200m\n/)
    t.regex(good.stdout, /\nports: +tcp\/9000\n/)
    const bytes = Uint8Array.from(ticket.bytes)
    // The signature comes second of the three fields; a byte in its middle is flipped.
    const at = Buffer.from(bytes).indexOf('signature') + 'signature'.length + 20
    bytes[at] = (bytes[at] ?? 0) ^ 1
    await writeFile(file, bytes)
    const bad = await cli(['ticket', 'inspect', file, '--json'], { services })
    t.is(bad.exitCode, 5)
    t.like(bad.json(), {
      objects: [{ type: 'ticket', signature: 'invalid' }],
      error: { code: 'SIGNATURE_INVALID' }
    })
    await writeFile(file, 'hello')
    t.is((await cli(['ticket', 'inspect', file])).exitCode, 5)
    t.is((await cli(['ticket', 'inspect', `${file}.none`])).exitCode, 1)
  })
})

test('a chain tells whether its links hold', async (t) => {
  await withHome(async (home) => {
    const file = join(home, 'chain')
    const lines = (cpuMillis: number): string =>
      [delegation, ticketOf({ cpuMillis })].map(({ bytes }) => Buffer.from(bytes).toString('hex')).join('\n')
    await writeFile(file, lines(200))
    const services = { now: () => NOW }
    t.regex((await cli(['ticket', 'inspect', file], { services })).stdout, /\nchain: {2}every link holds\n$/)
    await writeFile(file, lines(2000))
    const widened = await cli(['ticket', 'inspect', file], { services })
    t.is(widened.exitCode, 5)
    t.regex(widened.stderr, /code: TICKET_EXCEEDS_PARENT/)
  })
})

const REQUIREMENT = { program: 'nft', debianPackage: 'nftables', why: 'holds the rules' }

/** A machine that lacks nft until apt-get has run. */
function machine(uid = 0): { readonly doctor: DoctorComponents; readonly ran: string[] } {
  const ran: string[] = []
  const doctor = {
    ...systemDoctor,
    uid,
    requirements: [REQUIREMENT],
    kernelProbes: [],
    findRuntime: async () => ({
      name: 'runc' as const,
      version: '1.1.4',
      vulnerabilities: ['CVE-2024-21626'],
      why: 'crun is not installed'
    }),
    missingPrograms: async () =>
      ran.some((line) => line.startsWith('apt-get install')) ? [] : [REQUIREMENT],
    run: async (program: string, args: readonly string[]) => {
      ran.push([program, ...args].join(' '))
      return 'Setting up nftables\n'
    }
  }
  return { doctor, ran }
}

const NO_PORTS = { listenPorts: async () => [] }

test('the doctor tells what is missing, as a table and as a document', async (t) => {
  const { doctor, ran } = machine()
  const human = await cli(['doctor'], { services: { doctor, ...NO_PORTS } })
  t.is(human.exitCode, 1)
  t.regex(human.stdout, /\nnft +failed +missing; it holds the rules; apt-get install nftables\n/)
  t.regex(human.stderr, /code: HOST_PROGRAM_MISSING\n {2}hint: run `slicenet doctor --install` as root/)
  const program = await cli(['doctor', '--json'], { services: { doctor, ...NO_PORTS } })
  t.is(program.exitCode, 1)
  t.like(program.json(), {
    ok: false,
    packages: [{ name: 'nftables' }],
    error: { code: 'HOST_PROGRAM_MISSING' }
  })
  t.deepEqual(ran, [])
})

test('the doctor installs what is missing, says why, and does nothing the second time', async (t) => {
  const { doctor, ran } = machine()
  const services = { doctor, ...NO_PORTS }
  const first = await cli(['doctor', '--install'], { services })
  t.is(first.exitCode, 0)
  t.regex(first.stderr, /installing nftables: nft holds the rules\n/)
  t.regex(first.stderr, /Setting up nftables/)
  t.is(ran.length, 2)
  t.regex(first.stdout, /\nwarning: OCI runtime: runc 1\.1\.4 is chosen: .*: CVE-2024-21626\n/)
  const second = await cli(['doctor', '--install', '--json'], { services })
  t.like(second.json(), { ok: true, installed: [] })
  t.is(ran.length, 2)
})

test('the doctor installs nothing for others than root', async (t) => {
  const { doctor, ran } = machine(1000)
  const { exitCode, stderr } = await cli(['doctor', '--install'], { services: { doctor, ...NO_PORTS } })
  t.is(exitCode, 1)
  t.regex(stderr, /code: NOT_ROOT\n {2}hint: run as root: apt-get install/)
  t.deepEqual(ran, [])
})

const devnetView: DevnetView = {
  name: 'devnet',
  directory: '/tmp/d',
  hosts: [
    {
      name: 'node1',
      roles: ['node'],
      address: '198.18.0.2',
      principal: delegation.body.issuer,
      state: '/tmp/d/node1',
      socketPath: '/tmp/d/node1/control.sock',
      pid: 42
    }
  ]
}

test('devnet commands pass on what they are given, and exec ends as its program', async (t) => {
  const asked: unknown[] = []
  const devnet: Devnet = {
    devnetUp: async ({ signal: _signal, onProgress, ...init }) => {
      asked.push(init)
      onProgress('node1 is up')
      return devnetView
    },
    devnetDown: async ({ name }) => void asked.push(name),
    devnetStatus: async () => ({ ...devnetView, running: [] }),
    devnetExec: async (init) => {
      asked.push(init)
      return 9
    }
  }
  const services = { devnet: async () => devnet }
  const up = await cli(['devnet', 'up', '--nodes', '5'], { services })
  t.is(up.stderr, 'node1 is up\n')
  const row = (daemon: string): RegExp =>
    new RegExp(`\\nnode1 +node +198\\.18\\.0\\.2 +12D3KooW\\w{8} +${daemon} +/tmp/d/node1\\n$`)
  t.regex(up.stdout, row('running'))
  t.regex((await cli(['devnet', 'status'], { services })).stdout, row('no answer'))
  t.is((await cli(['devnet', 'exec', 'node1', '--', 'ip', '-4', 'a'], { services })).exitCode, 9)
  t.is((await cli(['devnet', 'exec', '--', 'ls'], { services })).exitCode, 9)
  t.is((await cli(['devnet', 'exec', 'node1'], { services })).exitCode, 2)
  await cli(['devnet', 'down', '--name', 'other'], { services })
  t.like((await cli(['devnet', 'status', '--json'], { services })).json(), { devnet: { name: 'devnet' } })
  t.deepEqual(asked, [
    { name: 'devnet', nodes: 5, agents: 2, brokers: 0, administrator: false, nat: false },
    { name: 'devnet', argv: ['ip', '-4', 'a'], host: 'node1' },
    { name: 'devnet', argv: ['ls'] },
    'other'
  ])
})

test('images are built, imported, listed and removed', async (t) => {
  const image = {
    id: `sha256:${'c'.repeat(64)}`,
    names: ['busybox'],
    bytes: 2_000_000,
    entries: 400,
    importedAt: NOW
  }
  const images: Images = {
    buildImage: async (name, { onProgress }) => {
      onProgress(`building ${name}`)
      return image
    },
    importImage: async () => image,
    listImages: async () => [image],
    async removeImage(given) {
      if (given !== 'busybox') throw new SlicenetError('IN_USE', 'a vserver has it')
      return image
    }
  }
  const services = { images: async () => images }
  const built = await cli(['image', 'build', 'busybox'], { services })
  t.is(built.stderr, 'building busybox\n')
  t.is(
    built.stdout,
    `NAME     IMAGE                SIZE    IMPORTED\nbusybox  sha256:${'c'.repeat(12)}  1.9MiB  2027-01-15T08:00:00Z\n`
  )
  t.is((await cli(['image', 'import', './x', '--name', 'busybox'], { services })).exitCode, 0)
  t.like((await cli(['image', 'list', '--json'], { services })).json(), { images: [{ id: image.id }] })
  const removed = await cli(['image', 'remove', 'busybox'], { services })
  t.is(removed.stdout, `removed ${image.id} (busybox)\n`)
  const used = await cli(['image', 'remove', 'debian'], { services })
  t.is(used.exitCode, 1)
  t.regex(used.stderr, /a vserver has it\n {2}code: IN_USE/)
})

test('an image is fetched through the daemon, which is told of whom and what to call it', async (t) => {
  const id = `sha256:${'c'.repeat(64)}`
  const asked: unknown[] = []
  await using control = await serveControl({
    async imageFetch(params, { emit }) {
      asked.push(params)
      await emit({ bytes: 2_000_000, from: holderKey.principal })
      return { id, names: ['alpine'], bytes: 3_000_000, entries: 7, importedAt: NOW }
    }
  })
  const options = { home: control.directory }
  const fetched = await cli(['image', 'fetch', id, '--from', 'node1', '--name', 'alpine'], options)
  t.is(fetched.exitCode, 0)
  t.regex(fetched.stderr, /^1\.9MiB so far, from 12D3KooW/)
  t.regex(fetched.stdout, /^NAME .*\nalpine /)
  t.like((await cli(['image', 'fetch', id, '--json'], options)).json(), { image: { id, names: ['alpine'] } })
  t.deepEqual(asked, [{ image: id, from: 'node1', name: 'alpine' }, { image: id }])
})

/**
 * What a vserver's root does in a Debian of its own, on a node with a real network: packages come over HTTP from a host of the
 * test's, and sshd is logged in to from there.
 */
import { randomBytes } from 'node:crypto'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { run, runAnyway, type RunResult } from '../../../src/base/host-program.ts'
import type { VserverStatus } from '../../../src/enforce/enforcer.ts'
import { SMALL, vserverSpec } from '../../enforce/enforcer-contract.ts'
import { tcp } from '../net/lab.ts'
import { BUILD_DEADLINE_MS, DebianHost } from './debian-host.ts'
import { TINY } from './package-server.ts'

const MIB = 1024 ** 2
const SLICE = 'princeton.codeen'
/** The slice's, as Unix takes it. */
const ACCOUNT = 'princeton_codeen'
const ID = 'debian'
const OWNED_PORT = 2222
const OTHER_PORT = 2223
const RESOURCES = {
  ...SMALL,
  memoryBytes: 512 * MIB,
  diskBytes: 512 * MIB,
  pids: 128,
  egressBpsMax: 100_000_000
}

const host = new DebianHost({ letter: 'i', packages: ['openssh-server', 'sudo'] })
/** Public lines of two key pairs, whose private halves are files of that name. */
const keys = { first: '', second: '' }

test.before(async (t) => {
  t.timeout(BUILD_DEADLINE_MS)
  await host.up()
  await makeKeys()
  const spec = vserverSpec(host.image, { id: ID, slice: SLICE, resources: RESOURCES, keys: [keys.first] })
  await host.ask({ op: 'create', spec: { ...spec, ports: [tcp(OWNED_PORT)] } })
})

test.after.always(() => host.down())

async function makeKeys(): Promise<void> {
  for (const name of ['first', 'second'] as const) {
    const file = join(host.directory, name)
    await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', file])
    keys[name] = (await readFile(`${file}.pub`, 'utf8')).trim()
  }
}

async function sh(script: string, user?: string): Promise<{ output: string; exitCode: number }> {
  const env = { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' }
  const program = { argv: ['sh', '-c', `exec 2>&1; ${script}`], env, ...(user === undefined ? {} : { user }) }
  return host.ask({ op: 'exec', id: ID, program })
}

/** Logs in from the world, knowing the server's key, and runs a command there. */
async function ssh(key: keyof typeof keys, command: string, port = OWNED_PORT): Promise<RunResult> {
  const { output: serverKey } = await sh('cat /etc/ssh/ssh_host_ed25519_key.pub')
  const known = join(host.directory, 'known_hosts')
  await writeFile(known, `[${host.addressOf('node')}]:${port} ${serverKey}`)
  const options = ['BatchMode=yes', 'IdentitiesOnly=yes', 'StrictHostKeyChecking=yes', 'ConnectTimeout=10']
  const [program, ...args] = [...host.enterWorld(), 'ssh', '-F', 'none', '-i', join(host.directory, key)]
  for (const option of [...options, `UserKnownHostsFile=${known}`]) args.push('-o', option)
  args.push('-p', String(port), `${ACCOUNT}@${host.addressOf('node')}`, command)
  return runAnyway(program, args)
}

test.serial('vserver root installs packages with apt-get, and their scripts run', async (t) => {
  const before = await sh(`command -v sshd sudo; getent passwd sshd ${TINY.account}`)
  t.is(before.output, '')
  const updated = await sh(`echo '${host.source}' > /etc/apt/sources.list; apt-get update`)
  t.is(updated.exitCode, 0, updated.output)
  const install = `apt-get install -y --no-install-recommends openssh-server sudo ${TINY.name}`
  const installed = await sh(install)
  t.is(installed.exitCode, 0, installed.output)
  const states = await sh(`dpkg-query -W -f '\${db:Status-Abbrev}\\n' openssh-server sudo ${TINY.name}`)
  t.is(states.output, 'ii \nii \nii \n')
  t.regex((await sh(`getent passwd sshd ${TINY.account}`)).output, /^sshd:.*\ntinyd:/)
  const said = await sh(`cat ${TINY.said}; stat -c %U ${TINY.said}; dpkg --audit`)
  t.is(said.output, `configure as root\n${TINY.account}\n`)
  // A set-user-id program of a package keeps its bit.
  t.is((await sh('stat -c "%U %a" /usr/bin/sudo')).output, 'root 4755\n')
})

test.serial(
  'vserver root adds accounts, and su and sudo lead to vserver root and nowhere else',
  async (t) => {
    const added = await sh(`adduser --disabled-password --gecos '' alice && useradd --create-home bob`)
    t.is(added.exitCode, 0, added.output)
    t.regex((await sh('id; pwd; touch ~/mine', 'alice')).output, /^uid=\d+\(alice\) gid=\d+\(alice\)/)
    t.is((await sh('stat -c %U ~alice/mine ~bob')).output, 'alice\nbob\n')
    // Nobody gets in who was not let in.
    t.not((await sh('sudo -n id -u', 'alice')).exitCode, 0)
    await sh(`usermod -aG sudo alice; echo '%sudo ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/all`)
    const became = await sh('sudo -n sh -c "id -u; touch /by-sudo; cat /proc/self/uid_map"', 'alice')
    t.regex(became.output, /^0\n\s*0 /)
    t.not((await sh('sudo -n id -u', 'bob')).exitCode, 0)
    const password = randomBytes(12).toString('hex')
    const su = (word: string, user: string): string => `echo ${word} | su -c 'id -u; touch /by-su' ${user}`
    t.is((await sh(`echo root:${password} | chpasswd`)).exitCode, 0)
    t.not((await sh(su('wrong', 'root'), 'bob')).exitCode, 0)
    t.regex((await sh(su(password, 'root'), 'bob')).output, /\n?0\n$/)
    // On the host that root is one of many.
    const { pid } = await host.ask<VserverStatus>({ op: 'status', id: ID })
    const [, outside] = (await readFile(`/proc/${pid}/uid_map`, 'utf8')).trim().split(/\s+/).map(Number)
    t.true(outside! > 0)
    t.regex(became.output, new RegExp(`^\\s*0\\s+${outside}\\s`, 'm'))
    const root = join(host.directory, 'run/vservers', ID, 'root')
    for (const file of ['by-sudo', 'by-su']) t.is((await stat(join(root, file))).uid, outside!, file)
  }
)

test.serial('sshd on an owned port lets in who has a key of the lease, and nobody else', async (t) => {
  await sh('mkdir -p /run/sshd')
  const argv = ['/usr/sbin/sshd', '-D', '-e', '-p', String(OWNED_PORT), '-p', String(OTHER_PORT)]
  await host.ask({ op: 'launch', id: ID, program: { argv, env: {} } })
  const isUp = async (): Promise<boolean> => {
    const { stderr } = await ssh('first', 'true')
    return !/refused|reset|closed/i.test(stderr)
  }
  for (let tries = 0; tries < 50 && !(await isUp()); tries++) await delay(100)
  const first = await ssh('first', 'id -un; hostname; echo "$SSH_CONNECTION"')
  t.is(first.exitCode, 0, first.stderr)
  const [account, name, connection = ''] = first.stdout.split('\n')
  t.deepEqual([account, name], [ACCOUNT, SLICE])
  t.true(connection.startsWith(`${host.addressOf('world')} `) && connection.endsWith(` ${OWNED_PORT}`))
  const stranger = await ssh('second', 'true')
  t.is(stranger.exitCode, 255)
  t.regex(stranger.stderr, /Permission denied \(publickey/)
  await host.ask({ op: 'setKeys', id: ID, keys: [keys.second] })
  t.is((await ssh('second', 'id -un')).stdout, `${ACCOUNT}\n`)
  const former = await ssh('first', 'true')
  t.is(former.exitCode, 255)
  t.regex(former.stderr, /Permission denied \(publickey/)
  // The same server listens on a port that the vserver does not own.
  const listening = await sh(`bash -c 'head -c 4 < /dev/tcp/127.0.0.1/${OTHER_PORT}'`)
  t.is(listening.output, 'SSH-')
  const elsewhere = await ssh('second', 'true', OTHER_PORT)
  t.is(elsewhere.exitCode, 255)
  t.regex(elsewhere.stderr, /Connection refused/)
})

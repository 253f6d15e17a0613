/** IPv6 of a real vserver on a node that has it: ordinary programs get out by it and are reached by it. */
import { chmod, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { systemClock as clock } from '../../../src/base/clock.ts'
import { createDevnetNetwork } from '../../../src/daemon/devnet-network.ts'
import { buildImage } from '../../../src/enforce/image-build.ts'
import { ImageStore } from '../../../src/enforce/image-store.ts'
import { SMALL, vserverSpec } from '../../enforce/enforcer-contract.ts'
import { giveSix, LineProgram, sixOf, tcp } from '../net/lab.ts'
import type { HostInit, HostRequest } from './host-process.ts'
import { ownDirectory, ownName } from '../own-names.ts'

const HOSTS = ['world', 'node']
const [WORLD, NODE] = [sixOf(0), sixOf(1)]
const name = ownName('i')
const network = createDevnetNetwork({ name, hosts: HOSTS })
let directory = ''
let host: LineProgram | undefined
let world: LineProgram | undefined

test.before(async () => {
  directory = await ownDirectory('i')
  // The roots of vservers lie below it.
  await chmod(directory, 0o711)
  const imagesDirectory = join(directory, 'images')
  const images = new ImageStore({ clock }, { directory: imagesDirectory })
  await images.start()
  const [image] = await Promise.all([buildImage('busybox', { images }), network.up()])
  await giveSix(name, HOSTS)
  const init: HostInit = { directory, nodeShort: `${name}-node`, imagesDirectory }
  const program = (file: string): string => fileURLToPath(new URL(file, import.meta.url))
  host = new LineProgram([
    ...network.enter('node'),
    process.execPath,
    program('host-process.ts'),
    JSON.stringify(init)
  ])
  const probe = ['/usr/bin/python3', program('../net/probe6.py'), 'up0']
  world = new LineProgram([...network.enter('world'), ...probe])
  await world.answer()
  await ask({ op: 'start' })
  const spec = vserverSpec(image.id, { id: 'six', slice: 'six', resources: SMALL, rights: ['raw-socket'] })
  await ask({ op: 'create', spec: { ...spec, ports: [tcp(9090, 9091)] } })
})

test.after.always(async () => {
  try {
    if (host !== undefined) await ask({ op: 'stop' })
  } finally {
    await host?.end()
    await world?.end()
    await network.down()
    await rm(directory, { recursive: true, force: true })
  }
})

async function ask<T>(request: HostRequest): Promise<T> {
  if (host === undefined) throw new TypeError('the host was not started')
  return host.ask<T>(request)
}

async function sh(script: string): Promise<{ output: string; exitCode: number }> {
  return ask({
    op: 'exec',
    id: 'six',
    program: { argv: ['/bin/sh', '-c', `exec 2>&1; ${script}`], env: { PATH: '/bin:/usr/bin:/sbin' } }
  })
}

test.serial('programs reach the world as the node', async (t) => {
  await world?.ask({ op: 'listen', port: 8081 })
  const other = await sh(`nc ${WORLD} 8081 </dev/null`)
  t.regex(other.output, new RegExp(`^${NODE} (?:4|5|60)\\d+`))
  t.regex((await sh(`ping -6 -c 2 ${WORLD}`)).output, /2 packets received/)
})

test.serial('the world reaches a program that listens on an owned port', async (t) => {
  const listening = sh(`echo from inside | timeout 10 nc -l -p 9091`)
  let answer = ''
  for (let round = 0; round < 100 && !answer.startsWith('from'); round++) {
    answer = (await world?.ask<string>({ op: 'connect', host: NODE, port: 9091, timeout: 1 })) ?? ''
  }
  t.is(answer.trim(), 'from inside')
  await listening
})

test.serial('it has its inside address and the node for a router, and nothing else', async (t) => {
  const addresses = (await sh('cat /proc/net/if_inet6')).output.trim().replaceAll(/ +/g, ' ').split('\n')
  t.deepEqual(addresses.map((line) => line.replace(/ .* /, ' ')).sort(), [
    `${'0'.repeat(31)}1 lo`,
    'fd51ce51ce5100010000000000000002 eth0'
  ])
  t.not((await sh(`ping -6 -c 1 -W 1 fd51:ce51:ce51:1::1`)).exitCode, 0, 'the node’s end is out of reach')
})

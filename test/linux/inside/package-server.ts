/**
 * A package repository on a host of the test's own: Debian's packages that an image lacks, fetched beforehand by the machine's
 * apt-get, and a tiny one made on the spot whose scripts say that they ran.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { run, start } from '../../../src/base/host-program.ts'

/** Its postinst makes an account of this name and this file. */
export const TINY = { name: 'slicenet-tiny', account: 'tinyd', said: '/var/lib/slicenet-tiny/configured' }

const DOWNLOAD_DEADLINE_MS = 5 * 60_000
const PORT = 8000
const TRIES = 100

export interface RepositoryInit {
  /** Of this repository alone; made. */
  readonly directory: string
  /** The image's root directory, whose own list of packages tells what it has. */
  readonly imageRoot: string
  readonly packages: readonly string[]
}

/** Fills the directory with packages and the list of them. */
export async function makeRepository({ directory, imageRoot, packages }: RepositoryInit): Promise<void> {
  const cache = join(directory, 'cache')
  await mkdir(join(cache, 'partial'), { recursive: true })
  // Apt's own account, which is not root, writes here.
  await chmod(directory, 0o755)
  await download({ imageRoot, packages, cache })
  for (const file of await readdir(cache)) {
    if (!file.endsWith('.deb')) continue
    // What stands for a colon in a file's name would stand for another thing in an address.
    await rename(join(cache, file), join(directory, file.replaceAll('%3a', '.')))
  }
  await rm(cache, { recursive: true })
  await makeTinyPackage(directory)
  const entries = []
  for (const file of await readdir(directory)) {
    if (file.endsWith('.deb')) entries.push(await entryOf(directory, file))
  }
  await writeFile(join(directory, 'Packages'), entries.join('\n'))
}

async function download(init: {
  readonly imageRoot: string
  readonly packages: readonly string[]
  readonly cache: string
}): Promise<void> {
  const lists = join(init.cache, 'lists')
  const apt = async (...words: readonly string[]): Promise<string> =>
    run('apt-get', ['-o', 'Debug::NoLocking=1', ...words], {
      deadlineMs: DOWNLOAD_DEADLINE_MS,
      env: { DEBIAN_FRONTEND: 'noninteractive' }
    })
  const status = `Dir::State::status=${join(init.imageRoot, 'var/lib/dpkg/status')}`
  const where = ['-o', status, '-o', `Dir::Cache::archives=${init.cache}`]
  const install = [...where, 'install', '--download-only', '--no-install-recommends', '-y', ...init.packages]
  try {
    await apt(...install)
  } catch {
    // The machine's lists of packages are old, or there are none.
    await mkdir(join(lists, 'partial'), { recursive: true })
    const own = ['-o', `Dir::State::lists=${lists}`]
    await apt(...own, 'update')
    await apt(...own, ...install)
  }
}

async function entryOf(directory: string, file: string): Promise<string> {
  const path = join(directory, file)
  const content = await readFile(path)
  const hash = createHash('sha256').update(content).digest('hex')
  const fields = await run('dpkg-deb', ['--field', path])
  return `${fields.trim()}\nFilename: ./${file}\nSize: ${content.length}\nSHA256: ${hash}\n`
}

async function makeTinyPackage(directory: string): Promise<void> {
  const { name, account, said } = TINY
  const tree = join(directory, name)
  await mkdir(join(tree, 'DEBIAN'), { recursive: true })
  const control = [
    `Package: ${name}`,
    'Version: 1',
    'Architecture: all',
    'Maintainer: nobody <nobody@example.org>',
    'Depends: adduser',
    'Description: says that its scripts ran'
  ]
  await writeFile(join(tree, 'DEBIAN/control'), `${control.join('\n')}\n`)
  const home = said.slice(0, said.lastIndexOf('/'))
  const script = [
    '#!/bin/sh',
    'set -e',
    `adduser --system --group --home ${home} ${account}`,
    `echo "$1 as $(id -un)" > ${said}`,
    `chown ${account}: ${said}`
  ]
  await writeFile(join(tree, 'DEBIAN/postinst'), `${script.join('\n')}\n`)
  await chmod(join(tree, 'DEBIAN/postinst'), 0o755)
  await run('dpkg-deb', ['--root-owner-group', '--build', tree, join(directory, `${name}.deb`)])
  await rm(tree, { recursive: true })
}

export interface PackageServer {
  readonly url: string
  close(): Promise<void>
}

/** Serves a repository over HTTP where `enter` leads. */
export async function servePackages(init: {
  readonly directory: string
  readonly enter: readonly string[]
  readonly address: string
}): Promise<PackageServer> {
  const { directory, enter, address } = init
  const serve = ['python3', '-m', 'http.server', '--bind', address, '--directory', directory, String(PORT)]
  const [program = '', ...args] = [...enter, ...serve]
  const server = start(program, args, 'ignore')
  const close = async (): Promise<void> => {
    if (server.exitCode !== null || server.signalCode !== null) return
    const ended = once(server, 'exit')
    server.kill('SIGKILL')
    await ended
  }
  const knock = `import socket; socket.create_connection(("${address}", ${PORT}), 1)`
  const [enterProgram, ...enterArgs] = [...enter, 'python3', '-c', knock]
  for (let tries = 0; tries < TRIES; tries++) {
    try {
      await run(enterProgram, enterArgs)
      return { url: `http://${address}:${PORT}/`, close }
    } catch {
      await delay(100)
    }
  }
  await close()
  throw new Error('the package server does not answer')
}

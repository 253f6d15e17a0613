/** A node with two real vservers, the controls beside them, and the things of the host that attempts are to reach. */
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { access, mkdir, readlink, symlink, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { ChildProcess } from 'node:child_process'
import { SlicenetError } from '../../../src/base/errors.ts'
import { run, start } from '../../../src/base/host-program.ts'
import { findHostProgram } from '../../../src/enforce/host-requirements.ts'
import type { OciRuntimeName } from '../../../src/enforce/oci-runtime.ts'
import { collect, outputOf, vserverSpec } from '../../enforce/enforcer-contract.ts'
import { OciNode } from '../oci-node.ts'
import {
  HIDDEN_FILE,
  programOf,
  programOfAll,
  readOutcome,
  readOutcomes,
  TERMINALS_DIRECTORY,
  WRITTEN_DIRECTORY,
  type Attempt,
  type Outcome
} from './attempt.ts'
import { Controls } from './controls.ts'

/**
 * The second has every right that an ordinary lease can have, the third an image made by an attacker; the fourth is an
 * administrative slice.
 */
const RIGHTS = {
  plain: [],
  'with-rights': ['raw-socket'],
  'hostile-image': ['raw-socket'],
  administrative: ['administrative', 'cap-net-raw']
} as const
export type VserverName = keyof typeof RIGHTS
const VSERVERS = Object.keys(RIGHTS) as readonly VserverName[]

export interface EscapeLabInit {
  /** The real vservers; all when absent. */
  readonly vservers?: readonly VserverName[]
  /** What attempts find in their environment beside what they always do. */
  readonly env?: Readonly<Record<string, string>>
}

export interface Told {
  readonly outcome: Outcome
  readonly reason: string
}

export class EscapeLab {
  readonly node: OciNode
  readonly controls: Controls
  /** The unpacked image of the vservers. */
  readonly imageRoot: string
  /** The OCI runtime on the host. */
  readonly runtimePath: string
  /** A directory of the host, open to all who reach it, with the file `secret`. */
  readonly outside: string
  readonly token: string
  readonly #marker: ChildProcess
  readonly #socket: Server
  readonly #env: Readonly<Record<string, string>>
  readonly #vservers: readonly VserverName[]

  private constructor(init: {
    readonly node: OciNode
    readonly controls: Controls
    readonly imageRoot: string
    readonly runtimePath: string
    readonly outside: string
    readonly token: string
    readonly marker: ChildProcess
    readonly socket: Server
    readonly env: Readonly<Record<string, string>>
    readonly vservers: readonly VserverName[]
  }) {
    this.node = init.node
    this.controls = init.controls
    this.imageRoot = init.imageRoot
    this.runtimePath = init.runtimePath
    this.outside = init.outside
    this.token = init.token
    this.#marker = init.marker
    this.#socket = init.socket
    this.#env = init.env
    this.#vservers = init.vservers
  }

  static async start(init: EscapeLabInit = {}): Promise<EscapeLab> {
    const vservers = init.vservers ?? VSERVERS
    const node = await OciNode.start()
    let marker: ChildProcess | undefined
    let socket: Server | undefined
    let memoryKey: number | undefined
    try {
      const token = randomBytes(16).toString('hex')
      const outside = join(node.directory, 'outside')
      const secret = join(outside, 'secret')
      await mkdir(outside)
      await writeFile(secret, `${token}\n`)
      const image = await imageWithPerl(node)
      const handler = join(outside, 'handler')
      await writeFile(handler, handlerOf(token), { mode: 0o755 })
      const isHostile = vservers.includes('hostile-image')
      const hostileImage = isHostile ? await imageWithHostileDevices(node, image) : image
      const { attributes } = await node.enforcer.capacity()
      const runtime = attributes.monitor!.replace('oci/', '') as OciRuntimeName
      const imageRoot = await node.images.open(image)
      const controls = new Controls({
        node,
        runtime,
        imageRoot,
        hostileRoot: await node.images.open(hostileImage),
        openDirectory: outside
      })
      await controls.start()
      await Promise.all(
        vservers.map(async (id) => {
          const from = id === 'hostile-image' ? hostileImage : image
          await node.enforcer.create(vserverSpec(from, { id, rights: RIGHTS[id] }))
        })
      )
      const seconds = String(randomInt(100_000_000, 999_999_999))
      const stdin = openSync(secret, 'r')
      // Its home tells whose it is where this process was killed.
      const markerEnv = { SLICENET_ESCAPE: token, HOME: outside }
      marker = start('sleep', [seconds], [stdin, 'ignore', 'ignore'], { env: markerEnv })
      closeSync(stdin)
      await once(marker, 'spawn')
      const socketName = `slicenet-escape-${token}`
      socket = createServer((connection) => connection.destroy())
      await once(socket.listen(`\0${socketName}`), 'listening')
      memoryKey = randomInt(1, 2 ** 31 - 1)
      await run('perl', ['-e', `defined(shmget(${memoryKey}, 4096, 01666)) or die $!`])
      const env = {
        HOST_FILE: secret,
        HOST_FIRST_IS_OPEN: await access('/proc/1/ns/pid').then(
          () => '1',
          () => ''
        ),
        HOST_HANDLE: await handleOf(secret),
        HOST_HANDLER: handler,
        HOST_MEMORY_KEY: String(memoryKey),
        HOST_NAME: hostname(),
        HOST_PID: String(marker.pid),
        HOST_PID_NAMESPACE: await readlink('/proc/self/ns/pid'),
        HOST_SECONDS: seconds,
        HOST_SOCKET: socketName,
        HOST_TOKEN: token,
        ...(await diskOf(node)),
        ...init.env
      }
      const runtimePath = (await findHostProgram(runtime))!
      return new EscapeLab({
        node,
        controls,
        imageRoot,
        runtimePath,
        outside,
        token,
        marker,
        socket,
        env,
        vservers
      })
    } catch (error) {
      await takeAway({ node, marker, socket, memoryKey })
      throw error
    }
  }

  /** Ends all of it, whatever an attempt left. */
  async stop(): Promise<void> {
    try {
      await this.controls.stop()
    } finally {
      await takeAway({
        node: this.node,
        marker: this.#marker,
        socket: this.#socket,
        memoryKey: Number(this.#env.HOST_MEMORY_KEY)
      })
    }
  }

  /** The vservers that an attempt is made in. */
  vserversFor(attempt: Attempt): readonly VserverName[] {
    return this.#vservers.filter(
      (id) =>
        (id === 'hostile-image') === attempt.without.includes('dev') &&
        !(id === 'administrative' && attempt.isLent === true)
    )
  }

  async tryInVserver(id: VserverName, attempt: Attempt): Promise<Told> {
    const { enforcer } = this.node
    if (attempt.isLaunched === true) {
      await enforcer.launch(id, this.#program(attempt))
      return readOutcome(await collect(enforcer.logs(id, { follow: true })))
    }
    const terminal = attempt.isAtTerminal === true ? { columns: 80, rows: 24 } : undefined
    const session = await enforcer.exec(
      id,
      this.#program(attempt),
      terminal === undefined ? {} : { terminal }
    )
    await session.write(undefined)
    return readOutcome((await outputOf(session)).output)
  }

  /** Makes attempts by one program, which takes less time. None may be one that is launched. */
  async tryAllInVserver(id: VserverName, attempts: readonly Attempt[]): Promise<Told[]> {
    const session = await this.node.enforcer.exec(id, this.#programOfAll(attempts))
    await session.write(undefined)
    return readOutcomes((await outputOf(session)).output, attempts)
  }

  /** Makes attempts that their control lacks the same for by one program. */
  async tryAllInControl(attempts: readonly [Attempt, ...Attempt[]]): Promise<Told[]> {
    return readOutcomes(await this.controls.run(attempts[0].without, this.#programOfAll(attempts)), attempts)
  }

  async tryInControl(attempt: Attempt): Promise<Told> {
    try {
      return readOutcome(await this.controls.run(attempt.without, this.#program(attempt)))
    } catch (error) {
      // A patched runtime does not even make what an old one would be led astray by.
      if (attempt.mayLack === undefined || !(error instanceof SlicenetError)) throw error
      return { outcome: 'absent', reason: error.message }
    }
  }

  #program(attempt: Attempt): { argv: string[]; env: Readonly<Record<string, string>> } {
    return { argv: ['perl', '-e', programOf(attempt)], env: this.#env }
  }

  #programOfAll(attempts: readonly Attempt[]): { argv: string[]; env: Readonly<Record<string, string>> } {
    return { argv: ['perl', '-e', programOfAll(attempts)], env: this.#env }
  }
}

async function takeAway(things: {
  readonly node: OciNode
  readonly marker: ChildProcess | undefined
  readonly socket: Server | undefined
  readonly memoryKey: number | undefined
}): Promise<void> {
  const { node, marker, socket, memoryKey } = things
  marker?.kill('SIGKILL')
  socket?.close()
  try {
    if (memoryKey !== undefined) {
      await run('perl', ['-e', `my $id = shmget(${memoryKey}, 0, 0); defined $id and shmctl($id, 0, 0)`])
    }
  } finally {
    await node.stop()
  }
}

/** A program of the host that shows every process the token, for the kernel to run. */
function handlerOf(token: string): string {
  return `#!/bin/sh
for root in /proc/[0-9]*/root; do
  if [ -e "$root/tmp/wanted" ]; then echo ${token} > "$root/tmp/handled"; fi
done
`
}

/** Busybox and the host's perl and id with the libraries that they want, and without any module. */
export async function imageWithPerl(node: OciNode): Promise<string> {
  const root = join(node.directory, 'perl-root')
  await run('cp', ['--archive', await node.images.open(node.image), root])
  const programs = ['/usr/bin/perl', '/usr/bin/id']
  const libraries = new Set((await run('ldd', programs)).match(/\/\S+(?= \()/g))
  await run('cp', ['--dereference', '--parents', ...programs, ...libraries, root])
  return (await node.images.import(root)).id
}

/** An image whose /dev leads the runtime astray: what it hides files behind, mounts, or takes for a terminal is another file. */
async function imageWithHostileDevices(node: OciNode, image: string): Promise<string> {
  const root = join(node.directory, 'hostile-root')
  await run('cp', ['--archive', await node.images.open(image), root])
  await run('rm', ['--recursive', '--force', join(root, 'dev')])
  await mkdir(join(root, 'dev/pts'), { recursive: true })
  await mkdir(join(root, TERMINALS_DIRECTORY))
  await symlink(HIDDEN_FILE, join(root, 'dev/null'))
  await symlink(WRITTEN_DIRECTORY, join(root, 'dev/shm'))
  await symlink(join(TERMINALS_DIRECTORY, 'ptmx'), join(root, 'dev/pts/ptmx'))
  await symlink(HIDDEN_FILE, join(root, 'dev/pts/0'))
  return (await node.images.import(root)).id
}

/** What a file is for `open_by_handle_at`, in hexadecimal digits. */
async function handleOf(path: string): Promise<string> {
  const number = process.arch === 'x64' ? 303 : 264
  const script = String.raw`
    my $handle = pack('Ll', 128, 0) . "\0" x 128;
    my $mount = "\0" x 8;
    my $path = $ARGV[0];
    syscall(${number}, -100, $path, $handle, $mount, 0) == 0 or die $!;
    print unpack('H*', substr $handle, 0, 8 + unpack 'L', $handle);`
  return run('perl', ['-e', script, path])
}

/** The loop device under the node's own volume: a disk of the host that may be tried on. */
async function diskOf(node: OciNode): Promise<Record<string, string>> {
  const volume = join(node.directory, 'state/volume.img')
  const path = /^(\/dev\/\w+):/.exec(await run('losetup', ['--associated', volume]))?.[1]
  if (path === undefined) throw new Error('the volume has no loop device')
  const [major = '', minor = ''] = (await run('stat', ['--format', '%t %T', path])).trim().split(' ')
  return {
    DISK_NAME: path.replace('/dev/', ''),
    DISK_MAJOR: String(Number.parseInt(major, 16)),
    DISK_MINOR: String(Number.parseInt(minor, 16))
  }
}

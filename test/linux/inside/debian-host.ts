/**
 * A node with a real network and the Debian image, and beside it a host that serves packages over HTTP: both in network
 * namespaces of the test's own.
 */
import { chmod, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { systemClock as clock } from '../../../src/base/clock.ts'
import { createDevnetNetwork } from '../../../src/daemon/devnet-network.ts'
import { readEnvironment } from '../../../src/daemon/environment.ts'
import { buildImage } from '../../../src/enforce/image-build.ts'
import { ImageStore } from '../../../src/enforce/image-store.ts'
import { LineProgram } from '../net/lab.ts'
import type { HostInit, HostRequest } from './host-process.ts'
import { makeRepository, servePackages, type PackageServer } from './package-server.ts'
import { ownDirectory, ownName } from '../own-names.ts'

/** How long `up` may take where the image is not there yet. */
export const BUILD_DEADLINE_MS = 20 * 60_000

export interface DebianHostInit {
  /** One letter, distinct in each test file. */
  readonly letter: string
  /** What is served, with all that they depend on and the image lacks. */
  readonly packages: readonly string[]
}

export class DebianHost {
  readonly #init: DebianHostInit
  readonly #network
  #directory = ''
  #image = ''
  #host: LineProgram | undefined
  #server: PackageServer | undefined

  constructor(init: DebianHostInit) {
    this.#init = init
    this.#network = createDevnetNetwork({ name: ownName(init.letter), hosts: ['world', 'node'] })
  }

  /** Of the test alone; the roots of vservers lie in it. */
  get directory(): string {
    return this.#directory
  }

  /** The id of the Debian image. */
  get image(): string {
    return this.#image
  }

  addressOf(host: 'world' | 'node'): string {
    return this.#network.address(host)
  }

  /** What to put before a program that shall run where the packages are. */
  enterWorld(): string[] {
    return this.#network.enter('world')
  }

  /** The line of apt's that names the served packages. */
  get source(): string {
    if (this.#server === undefined) throw new TypeError('no packages are served')
    return `deb [trusted=yes] ${this.#server.url} ./`
  }

  async up(): Promise<void> {
    const { letter, packages } = this.#init
    this.#directory = await ownDirectory(letter)
    await chmod(this.#directory, 0o711)
    const { imagesDirectory } = readEnvironment()
    const images = new ImageStore({ clock }, { directory: imagesDirectory })
    await images.start()
    const image = await images.find('debian').catch(() => buildImage('debian', { images }))
    this.#image = image.id
    const directory = join(this.#directory, 'packages')
    const imageRoot = await images.open(image.id)
    await Promise.all([makeRepository({ directory, imageRoot, packages }), this.#network.up()])
    const where = { enter: this.enterWorld(), address: this.addressOf('world') }
    this.#server = await servePackages({ directory, ...where })
    const nodeShort = `${ownName(letter)}-node`
    const init: HostInit = { directory: this.#directory, nodeShort, imagesDirectory }
    const program = fileURLToPath(new URL('host-process.ts', import.meta.url))
    this.#host = new LineProgram([
      ...this.#network.enter('node'),
      process.execPath,
      program,
      JSON.stringify(init)
    ])
    await this.ask({ op: 'start' })
  }

  async ask<T>(request: HostRequest): Promise<T> {
    if (this.#host === undefined) throw new TypeError('the host was not started')
    return this.#host.ask<T>(request)
  }

  /** Leaves nothing, however far `up` came. */
  async down(): Promise<void> {
    try {
      if (this.#host !== undefined) await this.ask({ op: 'stop' })
    } finally {
      await this.#host?.end()
      await this.#server?.close()
      await this.#network.down()
      await rm(this.#directory, { recursive: true, force: true })
    }
  }
}

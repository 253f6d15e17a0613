/** A devnet of one node and one agent that a test speaks to as its user does, by commands, from a home of its own. */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runCommand, type Outcome } from './command-line.ts'
import { ownHome, ownName } from './own-names.ts'

export interface SmallDevnetInit {
  /** One to six for its name. */
  readonly letters: string
  /** Of the command that makes its image; default that of busybox. */
  readonly image?: () => Promise<readonly string[]>
  /** Beside those for nodes and agents. */
  readonly flags?: readonly string[]
}

export class SmallDevnet {
  readonly #init: SmallDevnetInit
  #home = ''

  constructor(init: SmallDevnetInit) {
    this.#init = init
  }

  get name(): string {
    return ownName(this.#init.letters)
  }

  /** A directory that is there while it is up. */
  get home(): string {
    return this.#home
  }

  /** Throws what the command that failed said. */
  async up(): Promise<void> {
    const { letters, flags = [], image } = this.#init
    this.#home = await ownHome(letters)
    const build = image === undefined ? ['build', 'busybox'] : await image()
    const counts = ['--nodes', '1', '--agents', '1']
    for (const words of [
      ['image', ...build],
      ['devnet', 'up', '--name', this.name, ...counts, ...flags]
    ]) {
      const { exitCode, stderr } = await this.slicenet(...words)
      if (exitCode !== 0) throw new Error(`slicenet ${words.join(' ')}: ${stderr}`)
    }
  }

  /** Also after it went down. */
  async down(): Promise<Outcome> {
    const down = await this.slicenet('devnet', 'down', '--name', this.name)
    await rm(this.#home, { recursive: true, force: true })
    return down
  }

  async slicenet(...words: readonly string[]): Promise<Outcome> {
    return runCommand(words, { home: this.#home })
  }

  /** On one of its hosts. */
  async on(host: string, ...words: readonly string[]): Promise<Outcome> {
    return this.slicenet('devnet', 'exec', '--name', this.name, host, '--', 'slicenet', ...words)
  }

  /** Writes a slice file of little resources and gives its path. */
  async sliceFile(slice: string, image: string, fields = ''): Promise<string> {
    const path = join(this.#home, `${slice}.yaml`)
    const resources = 'resources: { cpu: 100m, memory: 64MiB, disk: 32MiB, pids: 32 }\n'
    await writeFile(path, `name: ${slice}\nimage: ${image}\nlease: 10m\n${resources}${fields}`)
    return path
  }
}

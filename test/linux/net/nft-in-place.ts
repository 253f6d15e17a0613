/** A program in the place of nft, for one that is run through it: what other kernels say can be said by this one. */
import { chmod, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ownDirectory } from '../own-names.ts'

/** Where host programs are looked for first. */
export const FIRST_PLACE = '/usr/local/sbin'

export class NftInPlace {
  readonly #directory: string

  private constructor(directory: string) {
    this.#directory = directory
  }

  /** `script`: of sh(1), which ends with another status than 0 where nft is to have failed; it finds what nft is to read in `$input`. */
  static async make(script: string): Promise<NftInPlace> {
    const place = new NftInPlace(await ownDirectory('nft'))
    const program = join(place.#directory, 'nft')
    await writeFile(
      program,
      `#!/bin/sh\ninput=$(cat)\n${script}\nprintf '%s\\n' "$input" | exec /usr/sbin/nft "$@"\n`
    )
    await chmod(program, 0o755)
    return place
  }

  /** Runs its arguments with that program, in a mount namespace of their own. */
  get through(): string[] {
    const place = `mount --bind ${this.#directory} ${FIRST_PLACE} && exec "$@"`
    return ['unshare', '--mount', 'sh', '-c', place, 'sh']
  }

  /** Makes an empty file that the script finds in `FIRST_PLACE`. */
  async say(name: string): Promise<void> {
    await writeFile(join(this.#directory, name), '')
  }

  async unsay(name: string): Promise<void> {
    await rm(join(this.#directory, name))
  }

  async remove(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true })
  }
}

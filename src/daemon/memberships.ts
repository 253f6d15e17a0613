/**
 * A peer's own memberships: envelopes that organisations signed for it, one file each in its state directory. They are
 * checked when they are taken in and again when they are read; those whose time is over are taken away.
 */
import { mkdir, open, readdir, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { contains } from '../ticket/interval.ts'
import { membershipFault, membershipObject, type Membership } from '../ticket/membership.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { readObjectFile } from './object-file.ts'

export interface MembershipsComponents {
  readonly clock: Clock
  readonly logger: Logger
}

export interface MembershipsInit {
  /** Of the peer's state; they are kept in a directory `memberships` of it. */
  readonly stateDirectory: string
  /** Whom they are to be for. */
  readonly member: Principal
}

const SUFFIX = '.membership'

export class Memberships {
  readonly #components: MembershipsComponents
  readonly #member: Principal
  readonly #directory: string
  readonly #kept = new Map<string, Signed<Membership>>()
  /** Shown although nothing is written yet. */
  readonly #tried = new Set<Signed<Membership>>()
  readonly #listeners = new Set<() => void>()

  constructor(components: MembershipsComponents, init: MembershipsInit) {
    this.#components = components
    this.#member = init.member
    this.#directory = join(init.stateDirectory, 'memberships')
  }

  /** Reads what is kept. A file that is of no use is passed over and told of; one out of time is taken away. */
  async load(): Promise<void> {
    this.#kept.clear()
    const names = await readdir(this.#directory).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return []
      throw new SlicenetError('STORE_FAILED', `${this.#directory} cannot be read`, { cause: error })
    })
    const files = names.filter((name) => name.endsWith(SUFFIX)).sort()
    for (const name of files.slice(0, LIMITS.membershipsKeptMax * 2)) await this.#read(name)
    await this.#drop()
  }

  /** Those kept whose time is not over, the newest of an organisation first. */
  list(): Signed<Membership>[] {
    const now = this.#components.clock.now()
    return [...this.#kept.values()].filter(({ body }) => now < body.notAfter).sort(byNewest)
  }

  /** What to show to others: of each organisation the newest that is valid now, envelopes. */
  shown(): Uint8Array[] {
    const now = this.#components.clock.now()
    const all = [...this.#tried, ...this.list()].sort(byNewest)
    const valid = all.filter(({ body }) => contains(body, now))
    const newest = valid.filter(
      ({ body }, index) => valid.findIndex((other) => other.body.issuer === body.issuer) === index
    )
    return newest.slice(0, LIMITS.membershipsShownMax).map(({ bytes }) => bytes)
  }

  /**
   * Takes one in for good; it is on disk when this resolves. Throws `ENCODING_INVALID`, `SIGNATURE_INVALID`,
   * `TOO_LARGE`, `MEMBERSHIP_FOREIGN` when it is another principal's, and `MEMBERSHIP_EXPIRED` or `NOT_YET_VALID`.
   */
  async keep(bytes: Uint8Array): Promise<Signed<Membership>> {
    const membership = membershipObject.open(bytes)
    const now = this.#components.clock.now()
    const fault = membershipFault(membership, { member: this.#member, now })
    if (fault !== undefined) throw fault
    await this.#write(membership)
    this.#kept.set(membership.id, membership)
    await this.#drop()
    this.#tell()
    return membership
  }

  /** Shows one as well, until it is disposed of; nothing is written. */
  tryOut(membership: Signed<Membership>): Disposable & { readonly membership: Signed<Membership> } {
    this.#tried.add(membership)
    this.#tell()
    return {
      membership,
      [Symbol.dispose]: () => {
        this.#tried.delete(membership)
        this.#tell()
      }
    }
  }

  /** Told when others are shown; gives what ends that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #tell(): void {
    for (const listener of this.#listeners) listener()
  }

  async #read(name: string): Promise<void> {
    const file = join(this.#directory, name)
    try {
      const membership = membershipObject.open(await readObjectFile(file))
      if (name !== nameOf(membership)) throw new Error('the file has the name of another membership')
      if (membership.body.member !== this.#member) throw new Error(`it is for ${membership.body.member}`)
      if (membership.bytes.length > LIMITS.membershipBytesMax) throw new Error('it is too large to be shown')
      this.#kept.set(membership.id, membership)
    } catch (error) {
      this.#components.logger.warn('a file of a membership is of no use', { file, error })
    }
  }

  /** Takes away those whose time is over, and the oldest beyond what is kept. */
  async #drop(): Promise<void> {
    const staying = new Set(this.list().slice(0, LIMITS.membershipsKeptMax))
    for (const membership of [...this.#kept.values()].filter((kept) => !staying.has(kept))) {
      this.#kept.delete(membership.id)
      await unlink(join(this.#directory, nameOf(membership))).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') this.#components.logger.warn('a membership was not removed', { error })
      })
    }
  }

  async #write(membership: Signed<Membership>): Promise<void> {
    const file = join(this.#directory, nameOf(membership))
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 })
      const draft = await open(`${file}.new`, 'w', 0o600)
      try {
        await draft.writeFile(membership.bytes)
        await draft.sync()
      } finally {
        await draft.close()
      }
      await rename(`${file}.new`, file)
    } catch (error) {
      throw new SlicenetError('STORE_FAILED', `${file} cannot be written`, { cause: error })
    }
  }
}

function nameOf({ id }: Signed<Membership>): string {
  return `${id}${SUFFIX}`
}

/** Sequence numbers grow with time; the id makes the order the same everywhere. */
function byNewest(a: Signed<Membership>, b: Signed<Membership>): number {
  return b.body.seq - a.body.seq || b.body.notAfter - a.body.notAfter || (a.id < b.id ? -1 : 1)
}

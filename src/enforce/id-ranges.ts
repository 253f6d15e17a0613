/**
 * The user and group ids that vservers have on the host: 65,536 each, never shared. For every range there is a user
 * namespace to shift the owners of the shared image by; making one takes a process, so the next one is made ahead.
 */
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { SlicenetError } from '../base/errors.ts'
import { begin } from '../base/host-program.ts'
import { LIMITS } from '../base/limits.ts'

export const IDS_PER_VSERVER = 65_536
const NAMESPACES_KEPT_MAX = 8
const IDS_PER_NODE = IDS_PER_VSERVER * LIMITS.vserversPerNodeMax

/** The first id of the `index`-th node of one machine; the ranges of nodes with different indexes never meet. */
export function nodeUidBase(index: number): number {
  const base = IDS_PER_NODE * (index + 1)
  if (!Number.isInteger(index) || index < 0 || base + IDS_PER_NODE > 2 ** 32 - 1) {
    throw new TypeError(`no id range for node ${index} on one machine`)
  }
  return base
}

export interface IdRangesInit {
  /** First id of this node's window of 65,536 × `vserversPerNodeMax` ids. */
  readonly uidBase: number
}

export class IdRanges {
  readonly #uidBase: number
  readonly #taken = new Set<number>()
  readonly #namespaces = new Map<number, Promise<number>>()
  #open = false

  constructor(init: IdRangesInit) {
    this.#uidBase = init.uidBase
  }

  start(): void {
    this.#open = true
    this.#prepare()
  }

  /** Lets go of all namespaces. */
  async stop(): Promise<void> {
    this.#open = false
    await Promise.all([...this.#namespaces.keys()].map((base) => this.#drop(base)))
  }

  /** Marks the range of a vserver that an earlier daemon made. */
  claim(base: number): void {
    this.#taken.add(base)
  }

  /** Takes a free range and gives its first id. Throws `BUSY` when the node has no more. */
  take(): number {
    const base = this.#ahead() ?? this.#firstFree()
    if (base === undefined) {
      throw new SlicenetError('BUSY', `this node holds ${LIMITS.vserversPerNodeMax} virtual machines already`)
    }
    this.#taken.add(base)
    return base
  }

  giveBack(base: number): void {
    this.#taken.delete(base)
  }

  /**
   * Calls `use` with a descriptor of a user namespace that maps ids 0 … 65535 to the range. A mount made with it keeps
   * the mapping by itself; the namespace is kept for the range's next vserver, as long as these are few.
   */
  async withNamespace<T>(base: number, use: (fd: number) => T): Promise<T> {
    const fd = await this.#namespace(base)
    try {
      return use(fd)
    } finally {
      if (this.#namespaces.size > NAMESPACES_KEPT_MAX) await this.#drop(base)
      this.#prepare()
    }
  }

  /** A free range whose namespace is there. */
  #ahead(): number | undefined {
    return [...this.#namespaces.keys()].find((base) => !this.#taken.has(base))
  }

  #firstFree(): number | undefined {
    for (let slot = 0; slot < LIMITS.vserversPerNodeMax; slot++) {
      const base = this.#uidBase + slot * IDS_PER_VSERVER
      if (!this.#taken.has(base)) return base
    }
    return undefined
  }

  #prepare(): void {
    const base = this.#firstFree()
    if (!this.#open || base === undefined || this.#ahead() !== undefined) return
    // Nobody waits for it yet; whoever asks for it later sees the failure.
    this.#namespace(base).catch(() => {})
  }

  #namespace(base: number): Promise<number> {
    const known = this.#namespaces.get(base)
    if (known !== undefined) return known
    const made = makeUserNamespace(base)
    this.#namespaces.set(base, made)
    made.catch(() => this.#namespaces.delete(base))
    return made
  }

  async #drop(base: number): Promise<void> {
    const namespace = this.#namespaces.get(base)
    if (namespace === undefined) return
    this.#namespaces.delete(base)
    await namespace.then(closeSync).catch(() => {})
  }
}

/** A namespace lives while a process or a descriptor is in it: a helper makes it, we map and hold it, the helper ends. */
async function makeUserNamespace(base: number): Promise<number> {
  const helper = begin('unshare', ['--user', 'cat'], ['pipe', 'pipe', 'ignore'])
  const [input, output] = helper.streams as [Socket, Socket]
  // A helper that ended before it could read is told by its end.
  input.on('error', () => {})
  try {
    input.write('\n')
    // What `cat` repeats shows that it runs, and so that the namespace is there.
    await Promise.race([
      once(output, 'data'),
      helper.ended.then(() => {
        throw new SlicenetError('KERNEL_FEATURE_MISSING', 'no user namespace can be made on this machine')
      })
    ])
    const mapping = `0 ${base} ${IDS_PER_VSERVER}`
    await Promise.all([
      writeFile(`/proc/${helper.pid}/uid_map`, mapping),
      writeFile(`/proc/${helper.pid}/gid_map`, mapping)
    ])
    return openSync(`/proc/${helper.pid}/ns/user`, 'r')
  } finally {
    input.end()
    await helper.ended
    output.destroy()
  }
}

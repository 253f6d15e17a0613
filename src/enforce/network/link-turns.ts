/** Who may change what: one task at a time for each vserver, and now and then one alone. */

export class LinkTurns {
  /** The last task of each id, so that two calls for one vserver do not meet in the kernel. */
  readonly #tasks = new Map<string, Promise<unknown>>()
  #alone: Promise<unknown> = Promise.resolve()

  /** Runs a task when those that came before for the same id are over. */
  async take<T>(id: string, task: () => Promise<T>): Promise<T> {
    const mine = Promise.allSettled([this.#tasks.get(id), this.#alone]).then(task)
    this.#tasks.set(id, mine)
    try {
      return await mine
    } finally {
      if (this.#tasks.get(id) === mine) this.#tasks.delete(id)
    }
  }

  /** Runs a task when all are over that came before, and before any that comes later. It must not take a turn itself. */
  async takeAlone(task: () => Promise<void>): Promise<void> {
    const mine = Promise.allSettled([this.#alone, ...this.#tasks.values()]).then(task)
    this.#alone = mine
    await mine
  }

  /** Resolves when all tasks are over that have come by now. */
  async settled(): Promise<void> {
    await Promise.allSettled([this.#alone, ...this.#tasks.values()])
  }
}

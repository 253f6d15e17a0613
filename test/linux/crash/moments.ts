/**
 * Tells a watcher of each moment in a node's work at which a crash may leave something half done. Moments of the parts come
 * through the daemon's decorators; those of the host programs that the parts run, through their diagnostics channel.
 *
 * A moment reads `commit begun: making`, `journal synced: active`, `runtime create ended`, `destroy done`,
 * `answered: newLease`.
 */
import { subscribe } from 'node:diagnostics_channel'
import { basename } from 'node:path'
import { HOST_PROGRAM_CHANNEL, type HostProgramEvent } from '../../../src/base/host-program.ts'
import type { PartDecorators } from '../../../src/daemon/part-decorators.ts'
import type { Disk, DiskFile } from '../../../src/store/disk.ts'
import type { Entry } from '../../../src/store/store.ts'
import { decodeCbor } from '../../../src/wire/cbor.ts'

/** Told of a moment as it is there; what it does happens before anything that follows. */
export type Watcher = (moment: string) => void

const LEASES = 'node-leases'
/** The record that says most of a commit with several. */
const STATES = ['renewed', 'making', 'active', 'ending', 'ended']
const RUNTIMES: ReadonlySet<string> = new Set(['runc', 'crun'])
const RUNTIME_COMMANDS = ['create', 'start', 'delete', 'run']

export function watchingDecorators(watch: Watcher): PartDecorators {
  /** What is being committed now: the disk does not know whose bytes it writes. */
  const committing: string[] = []
  const around = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
    watch(`${what} begun`)
    const result = await work()
    watch(`${what} done`)
    return result
  }
  return {
    disk: (disk) => watchedDisk(disk, watch, () => committing.at(-1)),
    store: (store) => ({
      start: () => store.start(),
      stop: () => store.stop(),
      get: (table, key) => store.get(table, key),
      iterate: (table, options) => store.iterate(table, options),
      async commit(entries) {
        const kind = kindOf(entries)
        if (kind === undefined) return store.commit(entries)
        watch(`commit begun: ${kind}`)
        committing.push(kind)
        try {
          await store.commit(entries)
        } finally {
          committing.splice(committing.indexOf(kind), 1)
        }
        watch(`commit done: ${kind}`)
      }
    }),
    network: (network) =>
      changed(network, {
        rename: (id, to) => around('rename', () => network.rename(id, to)),
        attach: (link) => around('attach', () => network.attach(link)),
        detach: (id) => around('detach', () => network.detach(id))
      }),
    enforcer: (enforcer) =>
      changed(enforcer, {
        create: (spec, options) => around('create', () => enforcer.create(spec, options)),
        destroy: (id) => around('destroy', () => enforcer.destroy(id))
      }),
    nodeHandlers: (handlers) => ({
      ...handlers,
      newLease: told(watch, 'newLease', handlers.newLease),
      renewLease: told(watch, 'renewLease', handlers.renewLease),
      deleteLease: told(watch, 'deleteLease', handlers.deleteLease)
    })
  }
}

function told<P, C, R>(
  watch: Watcher,
  name: string,
  handler: (params: P, call: C) => Promise<R>
): (params: P, call: C) => Promise<R> {
  return async (params, call) => {
    watch(`called: ${name}`)
    const result = await handler(params, call)
    watch(`answered: ${name}`)
    return result
  }
}

/** The part with some of its methods replaced. */
export function changed<T extends object>(part: T, methods: Partial<T>): T {
  return new Proxy(part, {
    get(target, name) {
      const own = methods[name as keyof T]
      if (own !== undefined) return own
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value
    }
  })
}

/** What a commit says of a lease: its new state, `withdrawn`, or undefined when it is about something else. */
export function kindOf(entries: readonly Entry[]): string | undefined {
  const kinds = entries
    .filter(({ table }) => table === LEASES)
    .map(({ value }) => (value === null ? 'withdrawn' : (decodeCbor(value) as { state: string }).state))
  return STATES.find((state) => kinds.includes(state)) ?? kinds[0]
}

function watchedDisk(disk: Disk, watch: Watcher, kind: () => string | undefined): Disk {
  const file = (inner: DiskFile, path: string): DiskFile => {
    const what = basename(path).startsWith('head') ? 'mark' : 'journal'
    const tell = (done: string): void => {
      const now = kind()
      if (now !== undefined) watch(`${what} ${done}: ${now}`)
    }
    return {
      truncate: (length) => inner.truncate(length),
      close: () => inner.close(),
      async write(bytes, position) {
        await inner.write(bytes, position)
        tell('written')
      },
      async sync() {
        await inner.sync()
        tell('synced')
      }
    }
  }
  return changed(disk, {
    create: async (path) => file(await disk.create(path), path),
    open: async (path) => file(await disk.open(path), path)
  })
}

/** From here on, tells of every host program of this process: `<program> begun` once it runs, `<program> ended`. */
export function watchPrograms(watch: Watcher): void {
  subscribe(HOST_PROGRAM_CHANNEL, (message) => {
    const { program, args, moment } = message as HostProgramEvent
    watch(`${programName(program, args)} ${moment}`)
  })
}

function programName(program: string, args: readonly string[]): string {
  if (RUNTIMES.has(program)) return `runtime ${args.find((each) => RUNTIME_COMMANDS.includes(each)) ?? '?'}`
  if (program === 'nsenter') return `nsenter ${args.find((each) => !each.startsWith('-')) ?? '?'}`
  return program
}

/**
 * The flows of all vservers, from the kernel's connection tracking: its events are read as they come, and its table now
 * and then, for flows that last and for whatever events were lost. It works in the network namespace of its process.
 */
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import type { ChildProcess } from 'node:child_process'
import type { Readable } from 'node:stream'
import type { Clock } from '../../base/clock.ts'
import { SlicenetError } from '../../base/errors.ts'
import { start as startProgram } from '../../base/host-program.ts'
import { repeat, type Startable } from '../../base/lifecycle.ts'
import { LIMITS } from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import { flowEnds, type Flow, type FlowEnd } from './flow.ts'
import { parseTrackedLine, TRACKED_LINE_CHARS_MAX, type TrackedLine } from './tracked-line.ts'
import { countUntracked, readNoRoom, readUntracked } from './untracked-flows.ts'
import { readUserNoRoom, UserFlows, type NetworkUserOwner } from './user-flows.ts'

/** What the daemon keeps its record of flows from. */
export interface FlowSource extends Startable {
  /** Flows that ended since it was asked last; with `all`, those that go on and had packets since they were told last. */
  take(options: { readonly all: boolean }): Promise<Flow[]>
  /** What may be missing. */
  losses(): FlowLosses
}

/** Of a node whose vservers have no network of its making. */
export const NO_FLOWS: FlowSource = {
  start: () => Promise.resolve(),
  stop: () => Promise.resolve(),
  take: () => Promise.resolve([]),
  losses: () => ({ overruns: 0, skipped: 0, unreadable: 0 })
}

export interface FlowLosses {
  /** How often the kernel had events that were not read in time; the table was read again after each. */
  readonly overruns: number
  /** Connections and packets outside of any that found no room or had no known vserver, and lines that could not be read. */
  readonly skipped: number
  readonly unreadable: number
}

export interface FlowWatchComponents {
  readonly clock: Clock
  readonly logger: Logger
  /** The vserver that has an inside address, or had it last. */
  readonly ownerOf: (address: string) => string | undefined
  /**
   * As the world knows the node by what leaves through this device, by an address of the family of `like`; what stays on the
   * node counts as the first uplink's.
   */
  readonly nodeAddress: (like: string, device: string) => string
  /** Vservers that share the node's network, or did, by the first of their ids. */
  readonly userOwners: () => ReadonlyMap<number, NetworkUserOwner>
}

export interface FlowWatchInit {
  /** The kernel's buffer for events that are not read yet. Default 8 MiB, for some ten thousand. */
  readonly eventBufferBytes?: number
}

const EVENT_BUFFER_BYTES = 8 * 1024 * 1024
const RESTART_MS = 1000
const REREAD_MS_MIN = 5000
const SETTINGS = ['nf_conntrack_acct', 'nf_conntrack_timestamp']
const PER_NET = '/proc/sys/net/netfilter'

interface OpenFlow {
  readonly flow: Flow
  /** The reading of the table in which it was missed: it may end before its event is read. */
  readonly missedIn?: number
  /** Packets of it that were told. */
  readonly told: number
}

export class FlowWatch implements FlowSource {
  readonly #c: FlowWatchComponents
  readonly #init: FlowWatchInit
  readonly #open = new Map<string, OpenFlow>()
  readonly #ended: Flow[] = []
  readonly #untracked = new Map<string, OpenFlow>()
  readonly #users = new UserFlows()
  #overruns = 0
  #skipped = 0
  #noRoom = 0
  /** Untracked flows of no known vserver that were there at the last reading. */
  #unowned: ReadonlySet<string> = new Set()
  #unreadable = 0
  #reading = 0
  #lastReading: Promise<void> = Promise.resolve()
  #nextReading: Promise<void> | undefined
  #mustReread = false
  #child: ChildProcess | undefined
  #loops: { stop(): Promise<void> }[] = []

  constructor(components: FlowWatchComponents, init: FlowWatchInit = {}) {
    this.#c = components
    this.#init = init
  }

  /** Has the kernel count, and reads what there is. The node's network must be up. Throws `KERNEL_FEATURE_MISSING`. */
  async start(): Promise<void> {
    if (this.#loops.length > 0) return
    const { clock, logger } = this.#c
    await this.#haveItCount()
    await countUntracked()
    const onError = (error: unknown): void => logger.error('flows are not read', { error })
    this.#loops = [
      repeat((signal) => this.#follow(signal), { clock, onError }, { intervalMs: RESTART_MS }),
      repeat(
        () => this.#rereadIfLost(),
        { clock, onError },
        { intervalMs: REREAD_MS_MIN, initialDelayMs: REREAD_MS_MIN }
      )
    ]
  }

  async stop(): Promise<void> {
    const loops = this.#loops
    this.#loops = []
    const stopped = Promise.all(loops.map((loop) => loop.stop()))
    this.#child?.kill('SIGKILL')
    await stopped
  }

  losses(): FlowLosses {
    return { overruns: this.#overruns, skipped: this.#skipped + this.#noRoom, unreadable: this.#unreadable }
  }

  async take({ all }: { readonly all: boolean }): Promise<Flow[]> {
    if (!all) return this.#ended.splice(0)
    await this.#readTable()
    await this.#readUntracked()
    const going: Flow[] = []
    for (const table of [this.#open, this.#untracked]) {
      for (const [key, open] of table) {
        const packets = packetsOf(open.flow)
        if (packets === open.told) continue
        going.push(open.flow)
        table.set(key, { ...open, told: packets })
      }
    }
    const ofUsers = await this.#users.take(this.#c.userOwners(), this.#c.clock.now())
    return [...this.#ended.splice(0), ...going, ...ofUsers]
  }

  async #haveItCount(): Promise<void> {
    for (const name of SETTINGS) {
      try {
        await writeFile(`${PER_NET}/${name}`, '1')
      } catch (cause) {
        // Times can be told without it, to the minute.
        if (name !== 'nf_conntrack_acct') continue
        const current = await readFile(`${PER_NET}/${name}`, 'utf8').catch(() => '')
        if (current.trim() === '1') continue
        throw new SlicenetError(
          'KERNEL_FEATURE_MISSING',
          'the kernel does not count what connections carry',
          {
            hint: 'set net.netfilter.nf_conntrack_acct to 1',
            cause
          }
        )
      }
    }
  }

  /** Reads events until the program ends, which it never does by itself. */
  async #follow(signal: AbortSignal): Promise<void> {
    const args = [
      '-E',
      '-e',
      'NEW,DESTROY',
      '-o',
      'id,timestamp',
      '-b',
      String(this.#init.eventBufferBytes ?? EVENT_BUFFER_BYTES)
    ]
    const child = startProgram('conntrack', args, ['ignore', 'pipe', 'pipe'])
    this.#child = child
    const ended = once(child, 'close')
    try {
      const outputs = [
        eachLine(child.stdout, (line) => this.#event(line)),
        eachLine(child.stderr, (line) => this.#said(line))
      ]
      // From here on nothing is missed that is not in the table.
      this.#mustReread = true
      await Promise.all([...outputs, ended])
    } finally {
      this.#child = undefined
      child.kill('SIGKILL')
    }
    if (signal.aborted) return
    this.#overruns += 1
    throw new SlicenetError('HOST_PROGRAM_FAILED', 'conntrack -E has ended')
  }

  #said(line: string): void {
    if (!line.includes('losing events')) return
    this.#overruns += 1
    this.#mustReread = true
    this.#c.logger.warn('events of connections were lost; the table is read again')
  }

  async #rereadIfLost(): Promise<void> {
    if (!this.#mustReread) return
    this.#mustReread = false
    await this.#readTable()
  }

  #event(line: string): void {
    const tracked = this.#parse(line)
    if (tracked?.event === undefined) return
    const now = tracked.time ?? this.#c.clock.now()
    for (const end of flowEnds(tracked)) {
      const key = keyOf(tracked, end)
      if (tracked.event === 'NEW') {
        // The number of one whose end was lost.
        this.#end(key)
        this.#begin(key, end, { first: now, last: now })
        continue
      }
      if (!this.#open.has(key)) this.#begin(key, end, { first: now - age(tracked), last: now })
      this.#update(key, end, now)
      this.#end(key)
    }
  }

  /** Who asks while it is read waits for a reading that begins after, which all of these share. */
  async #readTable(): Promise<void> {
    this.#nextReading ??= this.#lastReading.then(() => {
      this.#nextReading = undefined
      const reading = this.#readTableOnce()
      this.#lastReading = reading.catch(() => {})
      return reading
    })
    await this.#nextReading
  }

  async #readTableOnce(): Promise<void> {
    this.#reading += 1
    const reading = this.#reading
    const before = new Set(this.#open.keys())
    const child = startProgram('conntrack', ['-L', '-o', 'id'], ['ignore', 'pipe', 'pipe'])
    const ended = once(child, 'close')
    await Promise.all([
      eachLine(child.stdout, (line) => {
        const tracked = this.#parse(line)
        if (tracked === undefined) return
        const now = this.#c.clock.now()
        for (const end of flowEnds(tracked)) {
          const key = keyOf(tracked, end)
          before.delete(key)
          if (!this.#open.has(key)) this.#begin(key, end, { first: now - age(tracked), last: now })
          this.#update(key, end, now)
        }
      }),
      eachLine(child.stderr, () => {}),
      ended
    ])
    if (child.exitCode !== 0) throw new SlicenetError('HOST_PROGRAM_FAILED', 'conntrack -L failed')
    for (const key of before) {
      const open = this.#open.get(key)
      if (open === undefined) continue
      if (open.missedIn !== undefined && open.missedIn < reading) this.#end(key)
      else this.#open.set(key, { ...open, missedIn: reading })
    }
  }

  async #readUntracked(): Promise<void> {
    const now = this.#c.clock.now()
    const [ofLinks, ofUsers] = await Promise.all([readNoRoom(), readUserNoRoom()])
    this.#noRoom = ofLinks + ofUsers
    const gone = new Set(this.#untracked.keys())
    const unowned = new Set<string>()
    for (const count of await readUntracked()) {
      const { address, protocol, sourcePort, destination, destinationPort, device, packets, bytes } = count
      const id = `u${protocol}-${address}-${sourcePort}-${destination}-${destinationPort}-${device}`
      const vserver = this.#untracked.get(id)?.flow.vserver ?? this.#c.ownerOf(address)
      if (vserver === undefined) {
        if (!this.#unowned.has(id)) this.#skipped += 1
        unowned.add(id)
        continue
      }
      gone.delete(id)
      const last = now - count.quietSeconds * 1000
      const before = this.#untracked.get(id)
      const flow: Flow = {
        id,
        vserver,
        protocol,
        localAddress: this.#c.nodeAddress(destination, device),
        localPort: sourcePort,
        remoteAddress: destination,
        remotePort: destinationPort,
        begunBy: 'vserver',
        first: before?.flow.first ?? last,
        last,
        sent: { packets, bytes },
        received: { packets: 0, bytes: 0 },
        isTracked: false,
        isOpen: true
      }
      this.#untracked.set(id, { flow, told: before?.told ?? 0 })
    }
    for (const id of gone) this.#untracked.delete(id)
    this.#unowned = unowned
  }

  #parse(line: string): TrackedLine | undefined {
    if (line === '') return undefined
    const tracked = parseTrackedLine(line)
    // Of the machine's own connections there may be some that cannot be read.
    if (tracked === undefined && / (?:src|dst)=(?:100\.|fd51:ce51:)/.test(line)) this.#unreadable += 1
    return tracked
  }

  #begin(key: string, end: FlowEnd, times: { readonly first: number; readonly last: number }): void {
    const { address, ...rest } = end
    const vserver = this.#c.ownerOf(address)
    if (vserver === undefined || this.#open.size >= LIMITS.openFlowsMax) {
      this.#skipped += 1
      return
    }
    const flow: Flow = {
      id: key.slice(0, key.indexOf(' ')),
      vserver,
      ...rest,
      ...times,
      isTracked: true,
      isOpen: true
    }
    this.#open.set(key, { flow, told: 0 })
  }

  #update(key: string, { sent, received }: FlowEnd, now: number): void {
    const open = this.#open.get(key)
    if (open === undefined) return
    const isMore = sent.packets + received.packets > packetsOf(open.flow)
    const flow = isMore ? { ...open.flow, sent, received, last: now } : open.flow
    this.#open.set(key, { flow, told: open.told })
  }

  #end(key: string): void {
    const open = this.#open.get(key)
    if (open === undefined) return
    this.#open.delete(key)
    if (this.#ended.length >= LIMITS.openFlowsMax) this.#skipped += 1
    else this.#ended.push({ ...open.flow, isOpen: false })
  }
}

/** Of two vservers that talk to each other each has its own. */
function keyOf({ id }: TrackedLine, { address }: FlowEnd): string {
  return `${id.toString(16)} ${address}`
}

function age({ ageSeconds = 0 }: TrackedLine): number {
  return ageSeconds * 1000
}

function packetsOf({ sent, received }: Flow): number {
  return sent.packets + received.packets
}

async function eachLine(stream: Readable | null, take: (line: string) => void): Promise<void> {
  if (stream === null) return
  for await (const line of createInterface({ input: stream, crlfDelay: Infinity })) {
    if (line.length <= TRACKED_LINE_CHARS_MAX) take(line)
  }
}

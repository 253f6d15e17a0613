/** The lives of one node: its daemon is started again and again on the same state, and dies at a moment or whenever. */
import { readFile, writeFile, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createControlClient } from '../../../src/daemon/control-client.ts'
import type { LeaseView } from '../../../src/daemon/control-protocol.ts'
import { seeHost, type HostOfNode, type SeenHost } from './host-view.ts'
import { JsonProcess } from './json-process.ts'

const PROGRAM = fileURLToPath(new URL('node-daemon.ts', import.meta.url))
const ARMED_DEADLINE_MS = 20_000
const LAST_WORDS_CHARS = 6_000

/** What is taken out of a daemon: see `node-daemon.ts`. */
export type Fault = 'none' | 'forgetful' | 'careless'

export interface NodeLivesInit extends HostOfNode {
  readonly principal: string
  readonly env: Readonly<Record<string, string>>
  readonly log: FileHandle
}

export class NodeLives {
  readonly init: NodeLivesInit
  /** Milliseconds that each start took. */
  readonly starts: number[] = []
  #process: JsonProcess | undefined
  #isOver = false

  constructor(init: NodeLivesInit) {
    this.init = init
  }

  /** Begins a life without waiting for it to be ready. */
  spawn(fault: Fault = 'none'): JsonProcess {
    // A test that was given up on may still go on by itself.
    if (this.#isOver) throw new Error('the node is being given up')
    return this.#spawn(fault)
  }

  #spawn(fault: Fault): JsonProcess {
    const { namespace, env, log } = this.init
    const enter = ['nsenter', `--net=${namespace}`]
    this.#process = new JsonProcess([...enter, process.execPath, PROGRAM, fault], { env, stderr: log.fd })
    return this.#process
  }

  async start(fault: Fault = 'none'): Promise<void> {
    await this.#process?.kill()
    const began = performance.now()
    await this.spawn(fault).hear('ready')
    this.starts.push(Math.round(performance.now() - began))
  }

  get process(): JsonProcess {
    if (this.#process === undefined) throw new TypeError('the node was never started')
    return this.#process
  }

  /** How many vservers the lives to come make ahead. */
  async keepSpares(count: number): Promise<void> {
    const path = join(this.init.state, 'slicenet.yaml')
    const config = JSON.parse(await readFile(path, 'utf8')) as { node: { spares: number } }
    config.node.spares = count
    await writeFile(path, JSON.stringify(config))
  }

  /** From now on the daemon dies when the moment is there; `death` resolves with the moment it says it died at. */
  async arm(moment: string, deadlineMs = ARMED_DEADLINE_MS): Promise<{ death: Promise<string> }> {
    const { process } = this
    const armed = process.hear('armed')
    process.say({ arm: moment })
    await armed
    return { death: this.#death(moment, deadlineMs) }
  }

  async #death(moment: string, deadlineMs: number): Promise<string> {
    const { process } = this
    let said = 'nothing'
    process.listen(({ died }) => {
      if (typeof died === 'string') said = died
    })
    const timer = setTimeout(() => {
      said = `nothing in ${deadlineMs} ms, so not at ${moment}`
      process.child.kill('SIGKILL')
    }, deadlineMs)
    const how = await process.ended
    clearTimeout(timer)
    return how === 'SIGKILL' ? said : `its own end (${how})`
  }

  async leases(): Promise<LeaseView[]> {
    const call = createControlClient({ socketPath: `${this.init.state}/control.sock` })
    return (await call('leaseList', {}, { signal: AbortSignal.timeout(5_000) })).leases
  }

  /** The end of what its daemons logged. */
  async lastWords(): Promise<string> {
    const log = await readFile(`${this.init.state}/daemon.log`, 'utf8')
    return log.slice(-LAST_WORDS_CHARS)
  }

  see(): Promise<SeenHost> {
    return seeHost(this.init)
  }

  /** Takes away all that the node has on the machine; starts it for that if need be. */
  async giveUp(): Promise<void> {
    this.#isOver = true
    if (this.#process === undefined) return
    await this.#process.kill()
    await this.#spawn('none').hear('ready')
    const call = createControlClient({ socketPath: `${this.init.state}/control.sock` })
    await call('shutdown', { giveUpNode: true }, { signal: AbortSignal.timeout(60_000) })
    await this.process.ended
  }
}

/**
 * A virtual machine that can be thrown away: a stock Debian kernel under qemu without a network, emulated in software, whose
 * memory can be kept and started from again. Host and guest talk in lines over its second serial port.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { start } from '../../../src/base/host-program.ts'
import type { Kernel } from './debian-packages.ts'
import { Qmp } from './qmp.ts'

const MEMORY_MIB = 2560
const PROCESSORS = 2

export interface VirtualMachineInit {
  /** For its sockets and logs. */
  readonly directory: string
  readonly kernel: Kernel
  readonly initramfs: string
  readonly disk: string
  /** What is run in the repository, words without spaces. */
  readonly command: string
  /** Memory that was kept of a machine of the same kind; without it the machine boots. */
  readonly from?: string
  /** After which it is ended. */
  readonly deadlineMs: number
}

export class VirtualMachine {
  readonly #qemu: ChildProcess
  readonly #qmp: Qmp
  readonly #ended: Promise<unknown>
  readonly #timer: NodeJS.Timeout
  readonly #console: string
  /** What the guest says, line by line, until the machine ends. */
  readonly lines: AsyncIterable<string>

  private constructor(init: {
    readonly qemu: ChildProcess
    readonly qmp: Qmp
    readonly ended: Promise<unknown>
    readonly timer: NodeJS.Timeout
    readonly console: string
    readonly lines: AsyncIterable<string>
  }) {
    this.#qemu = init.qemu
    this.#qmp = init.qmp
    this.#ended = init.ended
    this.#timer = init.timer
    this.#console = init.console
    this.lines = init.lines
  }

  static async start(init: VirtualMachineInit): Promise<VirtualMachine> {
    const directory = await mkdtemp(join(init.directory, 'machine-'))
    const log = join(directory, 'console')
    const socket = join(directory, 'qmp')
    // Guards against other processors' side channels cost an emulated one much time and protect nobody.
    const append = `console=ttyS0 panic=-1 mitigations=off GUEST_COMMAND="${init.command}"`
    const args = [
      ['-machine', 'q35,accel=tcg', '-cpu', 'Nehalem', '-smp', String(PROCESSORS), '-m', String(MEMORY_MIB)],
      ['-display', 'none', '-nic', 'none', '-no-reboot'],
      ['-kernel', init.kernel.image, '-initrd', init.initramfs, '-append', append],
      ['-drive', `file=${init.disk},format=raw,if=virtio,readonly=on`],
      ['-serial', `file:${log}`, '-serial', 'stdio', '-qmp', `unix:${socket},server=on,wait=off`],
      init.from === undefined ? [] : ['-incoming', `exec:cat '${init.from}'`]
    ]
    // It ends with this process, however that ends.
    const command = ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...args.flat()]
    const qemu = start('setpriv', command, ['pipe', 'pipe', 'inherit'])
    const ended = once(qemu, 'exit')
    const timer = setTimeout(() => qemu.kill('SIGKILL'), init.deadlineMs)
    try {
      // Started now, so that no line is lost before somebody listens.
      const lines = createInterface({ input: qemu.stdout! })[Symbol.asyncIterator]()
      qemu.stdin!.on('error', () => {})
      const failed = ended.then(() => Promise.reject(new Error('qemu ended at once')))
      const qmp = await Promise.race([Qmp.connect(socket), failed])
      failed.catch(() => {})
      if (init.from !== undefined) await goOn(qmp)
      return new VirtualMachine({
        qemu,
        qmp,
        ended,
        timer,
        console: log,
        lines: { [Symbol.asyncIterator]: () => ({ next: () => lines.next() }) }
      })
    } catch (error) {
      clearTimeout(timer)
      qemu.kill('SIGKILL')
      await ended.catch(() => {})
      throw error
    }
  }

  say(line: string): void {
    this.#qemu.stdin!.write(`${line}\n`)
  }

  /** Keeps its memory in a file, to start others from. The machine does not go on. */
  async keep(path: string): Promise<void> {
    await this.#qmp.command('stop')
    // By default it is slow, for the sake of a network.
    await this.#qmp.command('migrate-set-parameters', { 'max-bandwidth': 10 ** 10 })
    await this.#qmp.command('migrate', { uri: `exec:cat > '${path}'` })
    for (;;) {
      const { status } = (await this.#qmp.command('query-migrate')) as { status?: string }
      if (status === 'completed') return
      if (status === 'failed') throw new Error('the memory of the machine could not be kept')
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  /** Waits for its end and gives why it ended as qemu calls it, such as `guest-reset` or `guest-shutdown`. */
  async whyItEnded(): Promise<string | undefined> {
    await this.#ended
    const told = this.#qmp.events.find(({ name }) => name === 'SHUTDOWN')
    return told?.data.reason as string | undefined
  }

  /** What its kernel said. */
  async console(): Promise<string> {
    return readFile(this.#console, 'utf8').catch(() => '')
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    clearTimeout(this.#timer)
    this.#qmp.close()
    if (this.#qemu.exitCode === null && this.#qemu.signalCode === null) this.#qemu.kill('SIGKILL')
    await this.#ended
  }
}

/** Has a machine go on that stood still when it was kept. Before all of it is there it neither hears nor goes on. */
async function goOn(qmp: Qmp): Promise<void> {
  for (;;) {
    const { status } = (await qmp.command('query-status')) as { status: string }
    if (status !== 'inmigrate') break
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  await qmp.command('cont')
}

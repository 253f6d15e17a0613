/** Speaks with qemu over its machine protocol: one JSON object a line, answers in the order of the commands, events between. */
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { createInterface } from 'node:readline'

const CONNECT_ATTEMPTS_MAX = 400

interface Message {
  readonly return?: unknown
  readonly error?: { readonly desc: string }
  readonly event?: string
  readonly data?: Readonly<Record<string, unknown>>
}

export interface QmpEvent {
  readonly name: string
  readonly data: Readonly<Record<string, unknown>>
}

export class Qmp {
  /** So far, oldest first. */
  readonly events: QmpEvent[] = []
  readonly #socket: Socket
  #waiting: { readonly resolve: (value: unknown) => void; readonly reject: (error: Error) => void }[] = []

  private constructor(socket: Socket) {
    this.#socket = socket
    createInterface({ input: socket }).on('line', (line) => this.#take(JSON.parse(line) as Message))
    socket.on('close', () => {
      for (const { reject } of this.#waiting) reject(new Error('qemu has ended'))
      this.#waiting = []
    })
  }

  /** Connects to a qemu that has just been started and may not listen yet. */
  static async connect(path: string): Promise<Qmp> {
    for (let attempt = 1; ; attempt++) {
      const socket = createConnection(path)
      try {
        await once(socket, 'connect')
        socket.on('error', () => {})
        const qmp = new Qmp(socket)
        await qmp.command('qmp_capabilities')
        return qmp
      } catch (error) {
        if (attempt === CONNECT_ATTEMPTS_MAX) throw error
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    }
  }

  /** Throws when qemu refuses it or ends. */
  async command(name: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    if (this.#socket.destroyed) throw new Error('qemu has ended')
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      this.#socket.write(`${JSON.stringify({ execute: name, arguments: args })}\n`)
    })
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(message: Message): void {
    if (message.event !== undefined) this.events.push({ name: message.event, data: message.data ?? {} })
    // What is neither is the greeting.
    if (message.error !== undefined) this.#waiting.shift()?.reject(new Error(message.error.desc))
    else if (message.return !== undefined) this.#waiting.shift()?.resolve(message.return)
  }
}

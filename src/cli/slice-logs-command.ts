/** `slicenet slice logs NAME`: what the launched programs of a slice have printed. */
import type { Command } from 'commander'
import { StringDecoder } from 'node:string_decoder'
import { LIMITS } from '../base/limits.ts'
import { examples, QUESTION, type CommandContext, type RunCommand, type Terminal } from './command.ts'
import { named, type OutputStream } from './gathered-output.ts'
import { formatDocument, writeAll, type Outcome } from './output.ts'
import { withSession } from './session.ts'
import { findMember, findSlice } from './slice-find.ts'
import { tame } from './table.ts'

interface LogsOptions {
  readonly member?: string
  readonly follow?: boolean
}

interface LogItem {
  readonly node: string
  readonly nodeName: string
  readonly stream: OutputStream
  readonly time: number
  readonly bytes: Uint8Array
}

const LINE_CHARS_MAX = 16 * 1024

export function addSliceLogsCommand(slice: Command, run: RunCommand): void {
  slice
    .command('logs')
    .description('print what the program of a slice has printed, of all members or one')
    .argument('<name>', 'the slice, or how its name begins')
    .option('--member <member>', 'node name, node id, lease or vserver, or how one begins')
    .option('--follow', 'go on until the programs end; with --json one document a chunk')
    .addHelpText(
      'after',
      examples('slicenet slice logs mesh', 'slicenet slice logs mesh --member node2 --follow')
    )
    .action((name: string, options: LogsOptions) =>
      run((context) => logs(context, name, options), options.follow === true ? {} : QUESTION)
    )
}

async function logs(context: CommandContext, given: string, options: LogsOptions): Promise<Outcome> {
  const { json, signal, terminal } = context
  const follow = options.follow === true
  const entries = new LogEntries()
  await withSession(context, async (call) => {
    const slice = await findSlice(call, given, signal)
    const member = options.member === undefined ? {} : { member: findMember(slice, options.member) }
    const isAlone = options.member !== undefined || slice.members.length === 1
    const printer = new LinePrinter(
      terminal,
      slice.members.map(({ nodeName }) => nodeName)
    )
    const onItem = async (item: LogItem): Promise<void> => {
      if (json && follow) await writeAll(terminal.stdout, formatDocument(entryOf(item)))
      else if (json) entries.add(item)
      else if (isAlone) await writeAll(terminal[item.stream], item.bytes)
      else await printer.print(item)
    }
    try {
      await call('sliceLogs', { slice: slice.name, ...member, follow }, { signal, onItem })
    } finally {
      await printer.flush()
    }
  })
  return json && !follow ? { document: entries.document() } : {}
}

function entryOf({ bytes, ...rest }: LogItem): Record<string, unknown> {
  return { ...rest, ...named('text', bytes) }
}

class LogEntries {
  readonly #entries: Record<string, unknown>[] = []
  #size = 0
  #isTruncated = false

  add(item: LogItem): void {
    this.#size += item.bytes.length
    if (this.#size > LIMITS.gatheredOutputBytesMax) this.#isTruncated = true
    else this.#entries.push(entryOf(item))
  }

  document(): Record<string, unknown> {
    return { entries: this.#entries, truncated: this.#isTruncated }
  }
}

/** Whole lines behind their member's name, so that those of several members can be told apart. */
class LinePrinter {
  readonly #terminal: Terminal
  readonly #width: number
  readonly #open = new Map<
    string,
    { readonly item: LogItem; readonly decoder: StringDecoder; text: string }
  >()

  constructor(terminal: Terminal, nodeNames: readonly string[]) {
    this.#terminal = terminal
    this.#width = Math.max(0, ...nodeNames.map((name) => name.length))
  }

  async print(item: LogItem): Promise<void> {
    const key = `${item.node} ${item.stream}`
    const open = this.#open.get(key) ?? { item, decoder: new StringDecoder('utf8'), text: '' }
    this.#open.set(key, open)
    const lines = (open.text + open.decoder.write(Buffer.from(item.bytes))).split('\n')
    open.text = lines.pop() ?? ''
    if (open.text.length > LINE_CHARS_MAX) {
      lines.push(open.text)
      open.text = ''
    }
    await this.#write(item, lines)
  }

  /** Lines that never ended. */
  async flush(): Promise<void> {
    for (const { item, decoder, text } of this.#open.values()) {
      const rest = text + decoder.end()
      if (rest !== '') await this.#write(item, [rest])
    }
    this.#open.clear()
  }

  async #write(item: LogItem, lines: readonly string[]): Promise<void> {
    const name = tame(item.nodeName).padEnd(this.#width)
    await writeAll(this.#terminal[item.stream], lines.map((line) => `${name} | ${line}\n`).join(''))
  }
}

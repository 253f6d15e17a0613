/** `slicenet ping PEER`: whether a peer is reached, directly or through a relay, and how long that takes. */
import { InvalidArgumentError, type Command } from 'commander'
import type { PingItem, PingView } from '../daemon/contact-protocol.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import { writeAll, type Outcome } from './output.ts'
import { withSession } from './session.ts'
import { tame } from './table.ts'

const COUNT_MAX = 1000

export function addPingCommand(root: Command, run: RunCommand): void {
  root
    .command('ping')
    .description('say whether a peer is reached, directly or through a relay, and how long that takes')
    .argument('<peer>', 'its principal, its name as a node or agent, the beginning of either, or an address')
    .option('--count <number>', 'how many pings', parseCount, 5)
    .addHelpText(
      'after',
      `${examples(
        'slicenet ping node1',
        'slicenet ping 12D3KooWQ128 --count 20',
        'slicenet ping /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW… --json'
      )}

A connection through a relay has five seconds to become direct first. It exits with 6 when the peer is not reached.`
    )
    .action((peer: string, { count }: { count: number }) =>
      run((context) => ping(context, peer, count), QUESTION)
    )
}

function parseCount(text: string): number {
  const count = /^\d{1,4}$/.test(text) ? Number(text) : 0
  if (count >= 1 && count <= COUNT_MAX) return count
  throw new InvalidArgumentError(`Expected 1 to ${COUNT_MAX}.`)
}

async function ping(context: CommandContext, peer: string, count: number): Promise<Outcome> {
  const { signal, json, terminal } = context
  const began = Date.now()
  let paths = 0
  const show = async (item: PingItem): Promise<void> => {
    if (item.event === 'path') paths += 1
    if (json) return
    await writeAll(terminal.stdout, `${itemText(item, { isFirst: paths === 1, ms: Date.now() - began })}\n`)
  }
  const view = await withSession(context, (call) => call('ping', { peer, count }, { signal, onItem: show }))
  return { document: { ping: { ...view, ...spread(view.rttMicros) } }, text: () => summary(view) }
}

function itemText(item: PingItem, { isFirst, ms }: { isFirst: boolean; ms: number }): string {
  if (item.event === 'ping') {
    return item.rttMicros === undefined ? 'no answer' : `rtt ${milliseconds(item.rttMicros)}`
  }
  const how = item.relayed ? 'relayed' : 'direct'
  const when = isFirst ? '' : ` after ${(ms / 1000).toFixed(1)} s`
  return `${how}${when}: ${tame(item.address)}`
}

function summary({ name, principal, relayed, sent, rttMicros }: PingView): string {
  const { minMicros, medianMicros, maxMicros } = spread(rttMicros)
  const times = [minMicros, medianMicros, maxMicros].map((micros) => milliseconds(micros)).join(' / ')
  return `${tame(name ?? principal)}: ${relayed ? 'relayed' : 'direct'}, ${rttMicros.length} of ${sent} answered; min/median/max ${times}\n`
}

function spread(rttMicros: readonly number[]): {
  minMicros: number
  medianMicros: number
  maxMicros: number
} {
  const sorted = rttMicros.toSorted((a, b) => a - b)
  const at = (index: number): number => sorted[index] ?? 0
  return {
    minMicros: at(0),
    medianMicros: at(Math.floor((sorted.length - 1) / 2)),
    maxMicros: at(sorted.length - 1)
  }
}

function milliseconds(micros: number): string {
  return `${(micros / 1000).toFixed(micros < 10_000 ? 2 : 1)} ms`
}

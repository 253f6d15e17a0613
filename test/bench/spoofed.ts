/**
 * Ten thousand frames of each class of what a vserver must not send, as the proof of the tests has them: how many reach the
 * world, with the node's checks and, so that the sniffer is known to see, a few of each without.
 */
import { icmp, Lab, tcp, udp, type LineProgram } from '../linux/net/lab.ts'
import { MARKS, OWN, spoofClasses } from '../linux/net/spoof-classes.ts'
import { figure, type BenchContext, type Figure } from './figure.ts'

const COUNT = 10_000
const CONTROL_COUNT = 200
const WAIT_SECONDS = 2

export async function spoofed({ signal, progress }: BenchContext): Promise<Figure[]> {
  const lab = new Lab({ letter: 'p' })
  try {
    await lab.up()
    const { pid } = await lab.vserver('one', [tcp(OWN.port), udp(OWN.port), icmp(OWN.id)])
    const [sender, world] = [
      await lab.program(pid, 'spoof.py', 'eth0'),
      await lab.program('world', 'spoof.py', 'up0')
    ]
    const classes = spoofClasses({ world: lab.worldAddress, node: lab.nodeAddress })
    const send = async (count: number): Promise<number> => {
      let sent = 0
      for (const { frames, how } of classes) {
        signal.throwIfAborted()
        const hex = frames.map((frame) => frame.toString('hex'))
        sent += await sender.ask<number>({
          op: 'send',
          frames: hex,
          count,
          ...(how === undefined ? {} : { how })
        })
      }
      return sent
    }
    const before = await seen(world)
    const sent = await send(COUNT)
    const leaked = (await seen(world)) - before
    progress(`${sent} frames of ${classes.length} classes sent, ${leaked} seen by the world`)
    await lab.nft(
      'flush chain netdev slicenet check; add rule netdev slicenet check accept; delete table ip slicenet'
    )
    const unchecked = await seen(world)
    await send(CONTROL_COUNT)
    const controlled = (await seen(world)) - unchecked
    progress(`without the checks the world sees ${controlled} of ${CONTROL_COUNT * classes.length}`)
    return [
      figure('spoof_leaked', [leaked], { unit: 'frames', atMost: 0 }),
      figure('spoof_sent', [sent], { unit: 'frames' }),
      // Some never pass a router, checked or not.
      figure('spoof_leaked_unchecked', [controlled], { unit: 'frames' })
    ]
  } finally {
    await lab.down()
  }
}

/** Marked frames that the sniffer has seen so far, once no more come. */
async function seen(sniffer: LineProgram): Promise<number> {
  const asked = { op: 'seen', mark: MARKS.spoof, least: Number.MAX_SAFE_INTEGER, wait: WAIT_SECONDS }
  const { counts } = await sniffer.ask<{ counts: Record<string, number> }>(asked)
  const ofSpoof = Object.entries(counts).filter(([key]) => key.startsWith(`${MARKS.spoof}:`))
  return ofSpoof.reduce((sum, [, count]) => sum + count, 0)
}

/**
 * The memory in which the kernel puts datagrams together that came in pieces. All who send through the node share it, so a
 * vserver that never sends the last pieces must not be able to fill it: the source check bounds what each sends, and here is
 * room for several such, for a short time.
 */
import { readFile, writeFile } from 'node:fs/promises'

const BYTES_MIN = 64 * 1024 * 1024
/** The pieces of a datagram come one right behind the other. */
const SECONDS_MAX = 1
const SETTINGS = '/proc/sys/net/ipv4'

/** Makes more room and waits less, in the network namespace of this process; what is better already stays. */
export async function boundFragmentMemory(): Promise<void> {
  await change('ipfrag_high_thresh', (bytes) => Math.max(bytes, BYTES_MIN))
  await change('ipfrag_time', (seconds) => Math.min(seconds, SECONDS_MAX))
}

async function change(name: string, wanted: (now: number) => number): Promise<void> {
  const path = `${SETTINGS}/${name}`
  const now = Number(await readFile(path, 'utf8'))
  if (wanted(now) !== now) await writeFile(path, `${wanted(now)}`)
}

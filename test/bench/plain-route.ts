/** A process in a network namespace behind a host that does nothing but forward: the yardstick for a node's network. */
import { run } from '../../src/base/host-program.ts'
import type { Lab } from '../linux/net/lab.ts'

const HOST = 'plain'
const DEVICE = 'p0'
/** Of the benchmarks' range (RFC 2544), beyond what hosts of a lab have. */
const INSIDE = '198.19.255.2'
const OUTSIDE = '198.19.255.1'

export interface PlainRoute {
  readonly pid: number
  readonly end: () => Promise<void>
}

/** On the lab's host `plain`. */
export async function plainRoute(lab: Lab): Promise<PlainRoute> {
  const pid = await lab.standIn()
  const ip = async (namespace: string, ...lines: readonly string[]): Promise<void> => {
    await run('nsenter', [`--net=${namespace}`, 'ip', '-batch', '-'], { input: `${lines.join('\n')}\n` })
  }
  const host = lab.namespaceOf(HOST)
  await ip(
    host,
    `link add ${DEVICE} type veth peer name eth0 netns ${pid}`,
    `addr add ${OUTSIDE} peer ${INSIDE} dev ${DEVICE}`,
    `link set ${DEVICE} up`
  )
  await ip(
    `/proc/${pid}/ns/net`,
    `addr add ${INSIDE} peer ${OUTSIDE} dev eth0`,
    'link set eth0 up',
    `route add default via ${OUTSIDE}`
  )
  await run('nsenter', [`--net=${host}`, 'sysctl', '-q', '-w', 'net.ipv4.ip_forward=1'])
  await ip(lab.namespaceOf('router'), `route add ${INSIDE} via ${lab.addressOf(HOST)}`)
  return { pid, end: async () => lab.endStandIn(pid) }
}

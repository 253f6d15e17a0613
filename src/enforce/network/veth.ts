/**
 * The links themselves: a veth pair per vserver, one end in its network namespace, the other on the node, point to point.
 * Whoever calls keeps the order: the host's end is raised last, when its checks stand.
 */
import { readFile, readlink } from 'node:fs/promises'
import { SlicenetError } from '../../base/errors.ts'
import { run, runAnyway } from '../../base/host-program.ts'
import { indexOfDevice, type LinkPlan } from './address-plan.ts'
import type { Uplink } from './uplink.ts'
import { gatewayLines6, insideLines6 } from './veth6.ts'

/** The device's name inside the vserver. */
export const INSIDE_DEVICE = 'eth0'

/**
 * The network namespace of a process, as the kernel names it: `net:[4026531840]`.
 * Throws `VSERVER_FAILED` when there is no such process, or when it shares the node's.
 */
export async function namespaceOf(pid: number): Promise<string> {
  const [namespace, own] = await Promise.all([
    readlink(`/proc/${pid}/ns/net`).catch(() => undefined),
    readlink('/proc/self/ns/net')
  ])
  if (namespace === undefined) throw new SlicenetError('VSERVER_FAILED', `process ${pid} is gone`)
  if (namespace === own) {
    throw new SlicenetError('VSERVER_FAILED', `process ${pid} has no network namespace of its own`)
  }
  return namespace
}

/**
 * Makes the pair from inside the namespace of process `pid`, the host's end down in this process's, and addresses,
 * routes and raises the inside end.
 */
export async function makeLink(
  plan: LinkPlan,
  pid: number,
  { mtu, address6 }: Pick<Uplink, 'mtu' | 'address6'>
): Promise<void> {
  const end = (name: string, mac: string): string => `${name} mtu ${mtu} address ${mac}`
  await insideBatch(pid, [
    `link add ${end(INSIDE_DEVICE, plan.insideMac)} type veth peer name ${end(plan.device, plan.hostMac)} netns ${process.pid}`,
    ...insideLines(plan, address6 !== undefined)
  ])
}

/** The same for a link that is there. */
export async function addressInside(
  plan: LinkPlan,
  pid: number,
  { address6 }: Pick<Uplink, 'address6'>
): Promise<void> {
  await insideBatch(pid, insideLines(plan, address6 !== undefined))
}

/** Addresses and raises the host's end: from here on packets flow. */
export async function raiseLink(plan: LinkPlan, { address6 }: Pick<Uplink, 'address6'>): Promise<void> {
  await run('ip', ['-batch', '-'], {
    input: lines([
      `link set ${plan.device} addrgenmode none`,
      `addr replace ${plan.gateway}/32 peer ${plan.address}/32 dev ${plan.device}`,
      `link set ${plan.device} up`,
      ...(address6 === undefined ? [] : gatewayLines6(plan))
    ])
  })
}

/** Removes both ends. Idempotent, also when the vserver's end, and so the link, goes away while it is being removed. */
export async function removeLink(device: string): Promise<void> {
  const result = await runAnyway('ip', ['link', 'del', 'dev', device])
  if (result.exitCode === 0 || saysGone(result.stderr)) return
  throw new SlicenetError('HOST_PROGRAM_FAILED', `ip cannot remove ${device}: ${result.stderr.trim()}`)
}

/** What ip(8) says of a device that is not there, or that went between its look and its asking. */
export function saysGone(stderr: string): boolean {
  return /Cannot find device|RTNETLINK answers: No such device/.test(stderr)
}

/** Numbers of the links whose host end is in this process's network namespace. */
export async function presentLinks(): Promise<Set<number>> {
  // Not /sys/class/net, which shows the namespace it was mounted in.
  const table = await readFile('/proc/self/net/dev', 'utf8')
  const indexes = table.split('\n').map((line) => indexOfDevice((line.split(':')[0] ?? '').trim()))
  return new Set(indexes.filter((index) => index !== undefined))
}

/** No IPv6 address is made up on either end, so that a silent vserver is silent. */
function insideLines(plan: LinkPlan, hasSix: boolean): string[] {
  return [
    'link set lo up',
    `addr replace ${plan.address}/32 peer ${plan.gateway}/32 dev ${INSIDE_DEVICE}`,
    `link set ${INSIDE_DEVICE} addrgenmode none`,
    `link set ${INSIDE_DEVICE} up`,
    `route replace default via ${plan.gateway} dev ${INSIDE_DEVICE}`,
    ...(hasSix ? insideLines6(plan, INSIDE_DEVICE) : [])
  ]
}

async function insideBatch(pid: number, commands: readonly string[]): Promise<void> {
  await run('nsenter', [`--net=/proc/${pid}/ns/net`, 'ip', '-batch', '-'], { input: lines(commands) })
}

function lines(commands: readonly string[]): string {
  return `${commands.join('\n')}\n`
}

/**
 * The links themselves: a veth pair per vserver, one end in its network namespace, the other on the node, point to point.
 * Whoever calls keeps the order: the host's end is raised last, when its checks stand.
 */
import { readFile, readlink } from 'node:fs/promises'
import { SlicenetError } from '../../base/errors.ts'
import { run, runAnyway } from '../../base/host-program.ts'
import { indexOfDevice, type LinkPlan } from './address-plan.ts'

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
 * Makes the pair in the node's own namespace, both ends down, before there is a process to give one to. The host's end is
 * addressed.
 */
export async function makePair(plan: LinkPlan, mtu: number): Promise<void> {
  const end = (name: string, mac: string): string => `${name} mtu ${mtu} address ${mac}`
  await hostBatch([
    `link add ${end(plan.device, plan.hostMac)} type veth peer ${end(`name ${plan.insideEnd}`, plan.insideMac)}`,
    `link set ${plan.device} addrgenmode none`,
    `addr replace ${plan.gateway}/32 peer ${plan.address}/32 dev ${plan.device}`
  ])
}

/** Moves one end into the network namespace of process `pid`, where it is addressed, routed and raised. */
export async function placeInside(plan: LinkPlan, pid: number): Promise<void> {
  await hostBatch([`link set ${plan.insideEnd} netns ${pid} name ${INSIDE_DEVICE}`])
  await addressInside(plan, pid)
}

/** Addresses, routes and raises the inside end of a link that is in its place. */
export async function addressInside(plan: LinkPlan, pid: number): Promise<void> {
  await insideBatch(pid, insideLines(plan))
}

/** Raises the host's end: from here on packets flow, once there is an end inside. */
export async function raiseLink(plan: LinkPlan): Promise<void> {
  await hostBatch([`link set ${plan.device} up`])
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
function insideLines(plan: LinkPlan): string[] {
  return [
    'link set lo up',
    `addr replace ${plan.address}/32 peer ${plan.gateway}/32 dev ${INSIDE_DEVICE}`,
    `link set ${INSIDE_DEVICE} addrgenmode none`,
    `link set ${INSIDE_DEVICE} up`,
    `route replace default via ${plan.gateway} dev ${INSIDE_DEVICE}`
  ]
}

async function hostBatch(commands: readonly string[]): Promise<void> {
  await run('ip', ['-batch', '-'], { input: lines(commands) })
}

async function insideBatch(pid: number, commands: readonly string[]): Promise<void> {
  await run('nsenter', [`--net=/proc/${pid}/ns/net`, 'ip', '-batch', '-'], { input: lines(commands) })
}

function lines(commands: readonly string[]): string {
  return `${commands.join('\n')}\n`
}

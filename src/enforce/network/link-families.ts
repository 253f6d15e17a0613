/**
 * Keeps vservers that run in step with the families of addresses that their node has. Of IPv6 they are given addresses and routes
 * as soon as the node has it, and lose them when it has none, so that programs see that there is no way and take IPv4.
 */
import { writeFile } from 'node:fs/promises'
import { run, runAnyway } from '../../base/host-program.ts'
import type { Logger } from '../../base/log.ts'
import { planLink, type LinkPlan } from './address-plan.ts'
import type { Families } from './link-lines.ts'
import type { LinkRecord } from './link-records.ts'
import { inNamespace, processesIn } from './namespaces.ts'
import { isPresent } from './uplink.ts'
import { forwardSix, type DeviceAddress } from './uplink6.ts'
import { INSIDE_DEVICE } from './veth.ts'
import { gatewayLines6, insideLines6, withdrawalLines6 } from './veth6.ts'

/** Vservers whose ends are changed at once. */
const AT_ONCE_MAX = 4

/**
 * Has the node forward what it has, and gives or takes IPv6 on those of these links that are not so yet; nothing else of them is
 * touched. Rules must stand before, and no link may be attached or detached meanwhile. One whose namespace is gone is passed over,
 * and one that cannot be changed holds up no other. Resolves the ids of those that are not as they should be.
 */
export async function followFamilies(
  records: readonly LinkRecord[],
  { address6 }: Families,
  logger: Logger
): Promise<string[]> {
  const hasSix = address6 !== undefined
  if (hasSix) await forwardSix()
  const behind = await linksBehind(records, hasSix)
  if (behind.length === 0) return []
  const processes = await processesIn(new Set(behind.map(({ namespace }) => namespace)))
  const changed: LinkPlan[] = []
  for (let first = 0; first < behind.length; first += AT_ONCE_MAX) {
    const group = behind.slice(first, first + AT_ONCE_MAX).map(async (record) => {
      const plan = planLink(record.index)
      try {
        const pids = processes.get(record.namespace) ?? []
        if (await changeInside(plan, { name: record.namespace, pids }, hasSix)) changed.push(plan)
      } catch (error) {
        logger.error('a vserver is not in step with the node’s IPv6', { id: record.id, error })
      }
    })
    await Promise.all(group)
  }
  const said = await changeNodeEnds(changed, hasSix)
  const left = await linksBehind(behind, hasSix)
  logger.info(hasSix ? 'vservers that run have IPv6 now' : 'vservers that run have no IPv6 any more', {
    vservers: behind.length - left.length,
    passedOver: left.map(({ id }) => id),
    ...(said === '' ? {} : { said })
  })
  return left.map(({ id }) => id)
}

/** The node's end is changed last, so it tells which links are done. */
async function linksBehind(records: readonly LinkRecord[], hasSix: boolean): Promise<LinkRecord[]> {
  const links = records.filter(({ ids }) => ids === undefined)
  if (links.length === 0) return []
  const shown = JSON.parse((await run('ip', ['-6', '-j', 'addr', 'show'])) || '[]') as readonly {
    readonly addr_info?: readonly DeviceAddress[]
  }[]
  const addresses = new Set(shown.flatMap(({ addr_info = [] }) => addr_info.map(({ local }) => local)))
  return links.filter(({ index }) => addresses.has(planLink(index).gateway6) !== hasSix)
}

/** Whether it was done: not where the vserver is gone. */
async function changeInside(
  plan: LinkPlan,
  namespace: { readonly name: string; readonly pids: readonly number[] },
  hasSix: boolean
): Promise<boolean> {
  const lines = hasSix ? insideLines6(plan, INSIDE_DEVICE) : withdrawalLines6(INSIDE_DEVICE)
  const isDone = await inNamespace(namespace.name, namespace.pids, async (path) => {
    // Both ends go before the namespace's name is free for another: while the node's is there, this is the vserver's.
    if (!(await isPresent(plan.device))) return false
    await run('nsenter', [`--net=${path}`, 'ip', '-6', '-batch', '-'], { input: batch(lines) })
    return true
  })
  return isDone === true
}

/** What ip(8) complains of: one that went meanwhile holds up no other. */
async function changeNodeEnds(plans: readonly LinkPlan[], hasSix: boolean): Promise<string> {
  if (plans.length === 0) return ''
  if (hasSix) {
    // Devices that were made while the node had IPv6 turned off have it so for good.
    for (const { device } of plans) {
      await writeFile(`/proc/sys/net/ipv6/conf/${device}/disable_ipv6`, '0').catch(() => {})
    }
  }
  const lines = plans.flatMap((plan) => (hasSix ? gatewayLines6(plan) : withdrawalLines6(plan.device)))
  const { stderr } = await runAnyway('ip', ['-6', '-force', '-batch', '-'], { input: batch(lines) })
  return stderr.trim().slice(0, 500)
}

function batch(lines: readonly string[]): string {
  return `${lines.join('\n')}\n`
}

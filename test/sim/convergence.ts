/** How a simulation must end: once nothing goes wrong any more, nothing is stuck and nothing is held for nobody. */
import { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import type { Process } from './host.ts'
import { hostsOf, type Overlay } from './overlay.ts'

/** What is not as it must be, a sentence each; empty when all is well. No messages are sent. */
export function leftovers(overlay: Overlay): string[] {
  const left: string[] = []
  for (const host of hostsOf(overlay)) if (host.process === undefined) left.push(`${host.name} is down`)
  for (const { host, machine, manager } of overlay.nodes) {
    for (const id of machine.vservers.keys()) left.push(`${host.name} runs ${id}`)
    for (const { lease, state } of manager?.table.holding() ?? []) {
      left.push(`${host.name} holds ${lease.body.vserver}, which is ${state}`)
    }
  }
  return left
}

/** Slices that are neither there nor gone. */
export async function stuckSlices({ holders }: Overlay): Promise<string[]> {
  const lists = await Promise.all(
    holders.map(async ({ host, services }) => {
      const slices = (await services?.list()) ?? []
      return slices
        .filter(({ state }) => state === 'acquiring' || state === 'deleting')
        .map(({ name, state }) => `${host.name}: slice ${name} is ${state}`)
    })
  )
  return lists.flat()
}

/** Gives all slices up. Those that something is done to already are left to it. */
export async function deleteAll({ holders }: Overlay): Promise<string[]> {
  const left: string[] = []
  await Promise.all(
    holders.map(async ({ host, services }) => {
      for (const { name } of (await services?.list()) ?? []) {
        await services
          ?.delete(name)
          .catch((error: unknown) => left.push(`${host.name}: ${name}: ${String(error)}`))
      }
    })
  )
  return left
}

/** Honest agents that would grant less than all of a node, as `probe` is told. Call it when nothing is leased. */
export async function heldBack(overlay: Overlay, probe: Process): Promise<string[]> {
  const { network, agents, nodes } = overlay
  const held: string[] = []
  for (const { host, isHonest } of agents) {
    if (!isHonest) continue
    const offers = new Map<string, Resources>()
    await network.caller(probe, agentProtocol, host.key.principal)(
      'getAds',
      {},
      {
        signal: probe.clock.timeout(30_000),
        onItem: ({ advert, available }) => {
          const node = overlay.observer.open(advert).body['issuer'] as string
          offers.set(node, available)
        }
      }
    )
    for (const node of nodes) {
      const available = offers.get(node.host.key.principal)
      const whole = overlay.shareOf(node, host.key.principal)
      if (whole === undefined) continue
      if (available === undefined) held.push(`${host.name} offers nothing of ${node.host.name}`)
      else if (available.cpuMillis < whole.cpuMillis || available.pids < whole.pids) {
        held.push(
          `${host.name} offers ${available.cpuMillis} of ${whole.cpuMillis} cpuMillis of ${node.host.name}`
        )
      }
    }
  }
  return held
}

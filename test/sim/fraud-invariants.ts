/**
 * What all signed objects of a simulation together must show: nobody who kept to the rules can be proven a fraud, not
 * even with everything that was ever said at hand, and whoever issued more than it may can.
 */
import { openAnyObject, type AnyObject } from '../../src/ticket/any-object.ts'
import type { Delegation } from '../../src/ticket/delegation.ts'
import { FraudWatch } from '../../src/ticket/fraud-watch.ts'
import type { Finding } from '../../src/ticket/fraud.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import { short } from './trace.ts'
import { hostsOf, type Overlay } from './overlay.ts'

/** Says what it finds as violations. Gives how many cheats were proven. */
export function checkFraud(overlay: Overlay): number {
  const { world, observer, agents } = overlay
  const objects = observer.objects().map(({ bytes }) => openAnyObject(bytes))
  const cheats = new Set(agents.filter(({ isHonest }) => !isHonest).map(({ host }) => host.key.principal))
  const nameOf = new Map(hostsOf(overlay).map(({ key, name }) => [key.principal, name]))
  const found = findings(objects)
  for (const { kind, accused, message } of found) {
    if (cheats.has(accused)) continue
    world.violated('nobody honest is proven a fraud', `${nameOf.get(accused)} of ${kind}: ${message}`)
  }
  const proven = new Set(found.map(({ accused }) => accused))
  for (const [cheat, delegation] of overissuers(objects)) {
    if (!cheats.has(cheat) || proven.has(cheat)) continue
    world.violated('a fraud is proven', `${nameOf.get(cheat)} issued too much under ${short(delegation)}`)
  }
  return proven.size
}

function findings(objects: readonly AnyObject[]): Finding[] {
  const watch = new FraudWatch()
  return objects.flatMap((one) => [...watch.observe(one)])
}

/** By the plainest of rules: what was issued under one delegation, summed at each instant at which a term begins. */
function overissuers(objects: readonly AnyObject[]): Map<string, string> {
  const delegations = new Map<string, Signed<Delegation>>()
  const tickets: Signed<Ticket>[] = []
  for (const { type, object } of objects) {
    if (type === 'delegation') delegations.set(object.id, object)
    if (type === 'ticket') tickets.push(object)
  }
  const guilty = new Map<string, string>()
  for (const [id, issued] of Map.groupBy(tickets, ({ body }) => body.parent)) {
    const delegation = delegations.get(id)
    if (delegation === undefined) continue
    const { holder, resources, overbookPercent } = delegation.body
    const limit = Math.floor((resources.cpuMillis * overbookPercent) / 100)
    for (const { body } of issued) {
      const instant = body.notBefore
      const together = issued.filter((one) => one.body.notBefore <= instant && instant < one.body.notAfter)
      const sum = together.reduce((total, one) => total + one.body.resources.cpuMillis, 0)
      if (sum > limit) guilty.set(holder, id)
    }
  }
  return guilty
}

/**
 * What ip(8) is told of IPv6 on a link: addresses and neighbours are fixed on both ends, so that neither has to ask for the
 * other or to hear of routers, and the source check lets none of that pass.
 */
import { VSERVER_POOL_6, type LinkPlan } from './address-plan.ts'

/** Of the vserver's end, after it was raised. */
export function insideLines6(plan: LinkPlan, device: string): string[] {
  return [
    ...endLines({ device, own: plan.address6, other: plan.gateway6, otherMac: plan.hostMac }),
    // The node's end may be down yet.
    `route replace ::/0 via ${plan.gateway6} dev ${device} onlink`
  ]
}

/** Of the node's end, after it was raised. */
export function gatewayLines6({ device, address6, gateway6, insideMac }: LinkPlan): string[] {
  return endLines({ device, own: gateway6, other: address6, otherMac: insideMac })
}

/** Of either end, for `ip -6`: takes away what the lines above put there, whatever of it is there. */
export function withdrawalLines6(device: string): string[] {
  return [
    `route flush dev ${device}`,
    `addr flush dev ${device} to ${VSERVER_POOL_6}`,
    `neigh flush dev ${device} nud permanent`
  ]
}

interface End {
  readonly device: string
  readonly own: string
  readonly other: string
  readonly otherMac: string
}

function endLines({ device, own, other, otherMac }: End): string[] {
  return [
    `addr replace ${own}/128 dev ${device} nodad`,
    `neigh replace ${other} lladdr ${otherMac} dev ${device} nud permanent`,
    // The way to a peer that is named with an address does not outlast the device being down.
    `route replace ${other}/128 dev ${device}`
  ]
}

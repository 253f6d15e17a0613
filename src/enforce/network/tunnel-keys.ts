/** The GRE keys that tunnels of the node itself bear: what comes with one is the kernel's, and no vserver's. */
import { run } from '../../base/host-program.ts'
import { portMax, type PortRange } from '../../ticket/ports.ts'

/** gre, gretap, erspan, ip6gre, ip6gretap, ip6erspan. */
const KIND = /gre|erspan/

/** In the network namespace of this process. */
export async function tunnelKeys(): Promise<PortRange[]> {
  return parseTunnelKeys(await run('ip', ['-j', '-d', 'link', 'show']))
}

/** Reads what `ip -j -d link show` prints; a tunnel whose keys are given with each packet (`external`) has all of them. */
export function parseTunnelKeys(printed: string): PortRange[] {
  const links = JSON.parse(printed || '[]') as readonly IpLink[]
  return links.flatMap(({ linkinfo }): PortRange[] => {
    const { info_kind: kind, info_data: data = {} } = linkinfo ?? {}
    if (kind === undefined || !KIND.test(kind)) return []
    if (data.external === true) return [{ protocol: 'gre', first: 1, last: portMax('gre') }]
    const keys = [data.ikey, data.okey].map(keyOf).filter((key) => key > 0)
    return [...new Set(keys)].map((key) => ({ protocol: 'gre', first: key, last: key }))
  })
}

/** Keys are printed as if they were addresses. */
function keyOf(text: string | undefined): number {
  if (text === undefined) return 0
  return text.split('.').reduce((key, byte) => key * 256 + Number(byte), 0)
}

interface IpLink {
  readonly linkinfo?: {
    readonly info_kind?: string
    readonly info_data?: { readonly external?: boolean; readonly ikey?: string; readonly okey?: string }
  }
}

/**
 * Hosts of a devnet that are behind a NAT: a LAN of private addresses, bridged in a gateway that masquerades what goes out
 * and lets nothing in that was not asked for.
 */

/** The gateway is a namespace on the devnet's router, as a host is. */
export interface Lan {
  readonly gateway: string
  readonly hosts: readonly string[]
}

const NAT = `
table ip slicenet_nat {
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname "up0" masquerade
  }
  chain forward {
    type filter hook forward priority filter; policy drop
    iifname "br0" accept
    ct state established,related accept
  }
  chain input {
    type filter hook input priority filter; policy drop
    iifname { "br0", "lo" } accept
    ct state established,related accept
    icmp type echo-request accept
  }
}
`

/** Every LAN has a /24 of its own from 192.168.0.0/16: the gateway is .1, its hosts follow. */
export function lanAddress(lan: number, host: number): string {
  return `192.168.${lan + 1}.${host + 2}`
}

export interface NamespaceWork {
  readonly namespace: string
  readonly argv: readonly string[]
  readonly input: string
}

/** What `ip -batch` does in the machine's namespace, once all namespaces are there. */
export function lanLinks(lans: readonly Lan[], namespaceOf: (host: string) => string): string[] {
  return lans.flatMap(({ gateway, hosts }) =>
    hosts.map(
      (host, index) =>
        `link add name m${index} netns ${namespaceOf(gateway)} type veth peer name up0 netns ${namespaceOf(host)}`
    )
  )
}

/** What is done in each namespace after that. */
export function lanWork(lans: readonly Lan[], namespaceOf: (host: string) => string): NamespaceWork[] {
  return lans.flatMap(({ gateway, hosts }, lan) => {
    const at = namespaceOf(gateway)
    const router = lanAddress(lan, -1)
    const ports = hosts.map((_host, index) => `link set m${index} master br0 addrgenmode none up`)
    return [
      {
        namespace: at,
        argv: ['ip', '-batch', '-'],
        input: lines([
          'link add br0 type bridge',
          `addr add ${router}/24 dev br0`,
          'link set br0 addrgenmode none up',
          ...ports
        ])
      },
      { namespace: at, argv: ['tee', '/proc/sys/net/ipv4/ip_forward'], input: '1' },
      { namespace: at, argv: ['nft', '-f', '-'], input: NAT },
      ...hosts.map((host, index) => ({
        namespace: namespaceOf(host),
        argv: ['ip', '-batch', '-'],
        input: lines([
          'link set lo up',
          `addr add ${lanAddress(lan, index)}/24 dev up0`,
          'link set up0 addrgenmode none up',
          `route add default via ${router} dev up0`
        ])
      }))
    ]
  })
}

function lines(commands: readonly string[]): string {
  return `${commands.join('\n')}\n`
}

/** What a vserver must not send over IPv6, as spoof-classes.ts has it of IPv4. */
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import { TCP, UDP } from './frames.ts'
import {
  datagram6,
  framed6,
  ICMP6,
  icmp6,
  ipv6Packet,
  message6,
  segment6,
  tcp6,
  udp6,
  type Ends,
  type Ipv6Init
} from './frames6.ts'
import { MARKS, NODE_PORT, OTHERS, OWN, type SpoofClass, type TranslatedClass } from './spoof-classes.ts'

export interface Parties6 {
  readonly world: string
  readonly node: string
}

const FIN = 1
const SYN = 2
const one = planLink(1)
const two = planLink(2)
const ALL_NODES = 'ff02::1'
const LOCAL = 'fe80::9'
const payload = (mark: string = MARKS.spoof, bytes = 20): Buffer =>
  Buffer.concat([Buffer.from(mark), Buffer.alloc(bytes)])

const frame = (packet: Buffer, over: { hostMac?: string; insideMac?: string } = {}): Buffer =>
  framed6(packet, { ...one, ...over })

class Maker {
  readonly out: Ends

  constructor(world: string) {
    this.out = { src: one.address6, dst: world }
  }

  /** A datagram from the own port, right but for what is given. */
  udp(over: Partial<Ipv6Init> = {}, sport: number = OWN.port, length?: number, mark?: string): Buffer {
    const ends = { src: over.src ?? this.out.src, dst: over.dst ?? this.out.dst }
    const init = { sport, dport: 5001, payload: payload(mark), ...(length === undefined ? {} : { length }) }
    return ipv6Packet({ ...ends, next: UDP, body: udp6(ends, init), ...over })
  }

  tcp(sport: number, flags: number, mark?: string, headerWords = 5): Buffer {
    return segment6(this.out, { sport, dport: 5002, flags, headerWords, payload: payload(mark) })
  }

  echoReply(id: number, mark?: string): Buffer {
    return message6(this.out, 129, (id << 16) | 1, payload(mark))
  }
}

export function spoofClasses6({ world, node }: Parties6): SpoofClass[] {
  const make = new Maker(world)
  return [
    ...sources(make, node),
    ...links(make),
    ...neighbours(make),
    ...extensions(make),
    ...protocols(make),
    ...lengths(make),
    ...addressees(make),
    ...ports(make)
  ]
}

function sources(make: Maker, node: string): SpoofClass[] {
  const from = (src: string): Pick<SpoofClass, 'frames' | 'counted'> => ({
    frames: [frame(make.udp({ src }))],
    counted: 'source'
  })
  return [
    { name: 'foreign source', ...from('2001:db8:99::9'), leaksTo: 'world' },
    {
      name: 'foreign source, PACKET_QDISC_BYPASS',
      how: 'bypass',
      ...from('2001:db8:99::9'),
      leaksTo: 'world'
    },
    { name: 'another vserver’s source', ...from(two.address6), leaksTo: 'world' },
    // Kernels pass on nothing from these.
    { name: 'the node’s source', ...from(node), leaksTo: 'link' },
    { name: 'the gateway’s source', ...from(one.gateway6), leaksTo: 'link' },
    { name: 'link-local source', ...from(LOCAL), leaksTo: 'link' },
    { name: 'loopback source', ...from('::1'), leaksTo: 'link' },
    { name: 'no source', ...from('::'), leaksTo: 'link' },
    { name: 'multicast source', ...from('ff0e::1'), leaksTo: 'link' }
  ]
}

function links(make: Maker): SpoofClass[] {
  const plain = frame(make.udp())
  const tagged = (tag: number): Buffer =>
    Buffer.concat([plain.subarray(0, 12), Buffer.from([0x81, 0, 0, tag]), plain.subarray(12)])
  return [
    {
      name: 'foreign MAC',
      frames: [frame(make.udp(), { insideMac: '02:00:00:00:00:09' })],
      counted: 'mac',
      leaksTo: 'world'
    },
    { name: 'VLAN 7', frames: [tagged(7)], counted: 'vlan', leaksTo: 'link' },
    { name: 'priority tag (VLAN 0)', frames: [tagged(0)], counted: 'vlan', leaksTo: 'world' }
  ]
}

/** What is said of routers, neighbours and groups. */
function neighbours(make: Maker): SpoofClass[] {
  const says = (name: string, type: number, ends: Ends, counted: 'ra' | 'ipv6' = 'ipv6'): SpoofClass => ({
    name,
    frames: [frame(message6(ends, type, 0, payload()))],
    counted,
    leaksTo: 'link'
  })
  const local = { src: LOCAL, dst: ALL_NODES }
  const own = { src: one.address6, dst: one.gateway6 }
  const report = icmp6(local, 143, 1, payload())
  const routerAlert = Buffer.from([ICMP6, 0, 5, 2, 0, 0, 1, 0])
  return [
    says('router advertisement', 134, local, 'ra'),
    says('router advertisement to the node', 134, own, 'ra'),
    says('router solicitation', 133, local),
    says('neighbour solicitation', 135, own),
    says('neighbour advertisement', 136, own),
    says('redirect', 137, own),
    says('listener report', 131, local),
    {
      name: 'listener report behind a router alert',
      frames: [frame(ipv6Packet({ ...local, next: 0, body: Buffer.concat([routerAlert, report]) }))],
      counted: 'ipv6',
      leaksTo: 'link'
    },
    says('router renumbering', 138, make.out),
    says('node information query', 139, make.out)
  ]
}

function extensions(make: Maker): SpoofClass[] {
  const inner = udp6(make.out, { sport: OWN.port, dport: 5001, payload: payload() })
  const behind = (next: number, header: string): Buffer[] => [
    frame(ipv6Packet({ ...make.out, next, body: Buffer.concat([Buffer.from(header, 'hex'), inner]) }))
  ]
  const refused = { counted: 'extension', leaksTo: 'world' } as const
  // UDP comes next; four bytes of padding, or none at all.
  const padded = '1100010400000000'
  return [
    { name: 'hop-by-hop options', frames: behind(0, padded), ...refused },
    { name: 'routing header', frames: behind(43, '1100040000000000'), ...refused },
    // The node’s kernel waits for the other pieces.
    { name: 'first fragment', frames: behind(44, '1100000100000007'), ...refused, leaksTo: 'link' },
    { name: 'later fragment', frames: behind(44, '1100000800000007'), ...refused, leaksTo: 'link' },
    { name: 'atomic fragment', frames: behind(44, '1100000000000007'), ...refused, leaksTo: 'link' },
    { name: 'destination options', frames: behind(60, padded), ...refused },
    { name: 'authentication header', frames: behind(51, `1101${'00'.repeat(10)}`), ...refused },
    { name: 'mobility header', frames: behind(135, '1100000000000000'), ...refused },
    { name: 'host identity', frames: behind(139, '1100000000000000'), ...refused },
    { name: 'shim6', frames: behind(140, '1100000000000000'), ...refused }
  ]
}

function protocols(make: Maker): SpoofClass[] {
  const all = { 'no next header': 59, ESP: 50, GRE: 47, 'IPv4 in IPv6': 4, 'IPv6 in IPv6': 41, SCTP: 132 }
  return Object.entries(all).map(([name, next]) => ({
    name,
    frames: [frame(ipv6Packet({ ...make.out, next, body: payload(MARKS.spoof, 60) }))],
    counted: 'protocol',
    leaksTo: 'world'
  }))
}

function lengths(make: Maker): SpoofClass[] {
  const short = { counted: 'length', leaksTo: 'world' } as const
  const cut = (next: number, bytes: number): Buffer[] => {
    const body = next === TCP ? tcp6(make.out, { sport: OWN.port, dport: 5002, flags: FIN }) : Buffer.alloc(8)
    const packet = ipv6Packet({ ...make.out, next, body: body.subarray(0, bytes) })
    // The mark is behind the packet's end.
    return [frame(Buffer.concat([packet, payload()]))]
  }
  return [
    {
      name: 'payload length beyond the frame',
      frames: [frame(make.udp({ payloadLength: 1400 }))],
      ...short,
      leaksTo: 'link'
    },
    { name: 'no payload length', frames: [frame(make.udp({ payloadLength: 0 }))], ...short, leaksTo: 'link' },
    { name: 'IPv4 called IPv6', frames: [frame(make.udp({ version: 4 }))], ...short, leaksTo: 'link' },
    { name: 'UDP length of 4', frames: [frame(make.udp({}, OWN.port, 4))], ...short },
    {
      name: 'UDP length beyond the packet',
      frames: [frame(make.udp({}, OWN.port, 1400))],
      counted: 'malformed',
      leaksTo: 'world'
    },
    { name: 'TCP header of 12 bytes', frames: [frame(make.tcp(OWN.port, FIN, MARKS.spoof, 3))], ...short },
    { name: 'TCP cut off', frames: cut(TCP, 12), ...short, leaksTo: 'link' },
    { name: 'UDP cut off', frames: cut(UDP, 4), ...short, leaksTo: 'link' },
    { name: 'ICMPv6 cut off', frames: cut(ICMP6, 4), ...short, leaksTo: 'link' }
  ]
}

function addressees(make: Maker): SpoofClass[] {
  const to = (dst: string): Buffer[] => [frame(make.udp({ dst }))]
  const many = { counted: 'multicast', leaksTo: 'link' } as const
  const asks = (sport: number, dport: number): Buffer[] => [
    frame(datagram6(make.out, { sport, dport, payload: payload() }))
  ]
  return [
    { name: 'multicast', frames: to(ALL_NODES), ...many },
    { name: 'multicast of the world', frames: to('ff0e::1'), ...many },
    { name: 'multicast MAC', frames: [frame(make.udp(), { hostMac: '33:33:00:00:00:01' })], ...many },
    {
      name: 'broadcast MAC',
      frames: [frame(make.udp(), { hostMac: 'ff:ff:ff:ff:ff:ff' })],
      counted: 'broadcast',
      leaksTo: 'link'
    },
    { name: 'DHCPv6 request', frames: asks(546, 547), counted: 'dhcp', leaksTo: 'world' },
    { name: 'DHCPv6 answer', frames: asks(547, 546), counted: 'dhcp', leaksTo: 'world' },
    { name: 'link-local destination', frames: to('fe80::1'), counted: 'denied', leaksTo: 'link' },
    { name: 'another vserver', frames: to(two.address6), counted: 'private', leaksTo: 'link' }
  ]
}

function ports(make: Maker): SpoofClass[] {
  const untracked = { counted: 'untracked', leaksTo: 'world' } as const
  const fin = { legitimate: [frame(make.tcp(OWN.port, FIN, MARKS.legitimate))], ...untracked }
  const about = datagram6({ src: make.out.dst, dst: '2001:db8:99::9' }, { sport: 7, dport: 8 })
  return [
    { name: 'FIN from another slice’s port', frames: [frame(make.tcp(OTHERS.port, FIN))], ...fin },
    { name: 'FIN from the node’s port', frames: [frame(make.tcp(NODE_PORT, FIN))], ...fin },
    {
      name: 'echo reply of another slice’s identifier',
      frames: [frame(make.echoReply(OTHERS.id))],
      legitimate: [frame(make.echoReply(OWN.id, MARKS.legitimate))],
      ...untracked
    },
    {
      name: 'an error about nobody’s packet',
      frames: [frame(message6(make.out, 1, 0, Buffer.concat([about, payload()])))],
      ...untracked
    }
  ]
}

/** Ordinary packets from ports that are not the vserver's: they leave, from other ports. */
export function translated6({ world }: Parties6): TranslatedClass[] {
  const make = new Maker(world)
  return [
    { name: 'UDP from another slice’s port', frames: [frame(make.udp({}, OTHERS.port))], port: OTHERS.port },
    { name: 'SYN from another slice’s port', frames: [frame(make.tcp(OTHERS.port, SYN))], port: OTHERS.port },
    { name: 'SYN from the node’s port', frames: [frame(make.tcp(NODE_PORT, SYN))], port: NODE_PORT }
  ]
}

/** What passes where a class names nothing. */
export function ordinary6({ world }: Parties6): Buffer {
  return frame(new Maker(world).udp({}, OWN.port, undefined, MARKS.legitimate))
}

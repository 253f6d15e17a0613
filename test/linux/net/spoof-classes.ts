/** What a vserver must not send: each class of it as frames, with what it is counted as and where it is seen without checks. */
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import type { DropReason } from '../../../src/enforce/network/drop-chains.ts'
import type { Refusal } from '../../../src/enforce/network/source-check.ts'
import {
  arp,
  ethernet,
  ICMP,
  icmpBody,
  ipv4,
  ipv6,
  TCP,
  tcpBody,
  UDP,
  udpBody,
  type Ipv4Init
} from './frames.ts'

/** Ports of both protocols and an ICMP identifier that vserver one owns, and that vserver two does. */
export const OWN = { port: 8080, id: 600 } as const
export const OTHERS = { port: 9090, id: 700 } as const
export const NODE_PORT = 4001

export interface SpoofClass {
  readonly name: string
  /** How it is sent: packet socket, the same with PACKET_QDISC_BYPASS, as SOCK_DGRAM, or a raw socket with IP_HDRINCL. */
  readonly how?: 'packet' | 'bypass' | 'dgram' | 'hdrincl'
  readonly frames: readonly Buffer[]
  /** What passes while it does not; default an ordinary datagram, sent in the same way. */
  readonly legitimate?: readonly Buffer[]
  readonly counted: Refusal | DropReason
  /**
   * Where it is seen without checks: by the world, or, as a router passes on no such frame, right behind the check on the
   * host's end.
   */
  readonly leaksTo: 'world' | 'link'
  /** Milliseconds between bursts, for what the node takes at a limited rate. */
  readonly pauseMs?: number
}

export interface Parties {
  readonly world: string
  readonly node: string
}

const SPOOF = '#spoof'
const LEGIT = '#legit'
export const MARKS = { spoof: SPOOF, legitimate: LEGIT } as const
const FIN = 1
const MORE = 0x2000
/** So that not more pieces are sent than the node takes. */
const PIECES_PAUSE_MS = 17

const one = planLink(1)
const two = planLink(2)
const mac = (text: string): Buffer => Buffer.from(text.replaceAll(':', ''), 'hex')
const own = mac(one.insideMac)
const host = mac(one.hostMac)
const ALL = Buffer.alloc(6, 0xff)
const GROUP = mac('01:00:5e:00:00:fb')
const payload = (mark: string, bytes = 20): Buffer => Buffer.concat([Buffer.from(mark), Buffer.alloc(bytes)])

/** Frames of vserver one to the world, right but for what is given. */
class Maker {
  readonly #world: string

  constructor(world: string) {
    this.#world = world
  }

  frame(over: Partial<Ipv4Init> = {}, to = host, from = own): Buffer {
    const body = udpBody(OWN.port, 5001, payload(SPOOF))
    return ethernet(
      to,
      from,
      0x0800,
      ipv4({ src: one.address, dst: this.#world, protocol: UDP, body, ...over })
    )
  }

  udp(sport: number, mark: string = SPOOF, length?: number): Buffer {
    return this.frame({ body: udpBody(sport, 5001, payload(mark), length) })
  }

  tcp(sport: number, flags = FIN, mark: string = SPOOF, over: { headerWords?: number } = {}): Buffer {
    const ends = { src: one.address, dst: this.#world, sport, dport: 5002 }
    return this.frame({ protocol: TCP, body: tcpBody({ ...ends, flags, payload: payload(mark), ...over }) })
  }

  icmp(type: number, code: number, rest: number, mark: string = SPOOF): Buffer {
    return this.frame({ protocol: ICMP, body: icmpBody(type, code, rest, payload(mark)) })
  }

  /** A datagram of 2,000 bytes in its two pieces. */
  pieces(mark: string, sport: number = OWN.port): Buffer[] {
    const body = udpBody(sport, 5001, payload(mark, 1986))
    return [
      this.frame({ body: body.subarray(0, 1200), fragment: MORE }),
      this.frame({ body: body.subarray(1200), fragment: 1200 / 8 })
    ]
  }
}

export function spoofClasses({ world, node }: Parties): SpoofClass[] {
  const make = new Maker(world)
  return [
    ...sources(make, node),
    ...links(make),
    ...protocols(make),
    ...sixes(),
    ...pieces(make),
    ...headers(make),
    ...addressees(make),
    ...ports(make)
  ]
}

function sources(make: Maker, node: string): SpoofClass[] {
  const foreign = {
    frames: [make.frame({ src: '203.0.113.7' })],
    counted: 'source',
    leaksTo: 'world'
  } as const
  return [
    { name: 'foreign source, AF_PACKET', ...foreign },
    { name: 'foreign source, PACKET_QDISC_BYPASS', how: 'bypass', ...foreign },
    { name: 'foreign source, AF_PACKET SOCK_DGRAM', how: 'dgram', ...foreign },
    { name: 'foreign source, IP_HDRINCL', how: 'hdrincl', ...foreign },
    { ...foreign, name: 'another vserver’s source', frames: [make.frame({ src: two.address })] },
    // A kernel takes its own addresses for nobody else’s.
    { ...foreign, name: 'the node’s source', frames: [make.frame({ src: node })], leaksTo: 'link' },
    { ...foreign, name: 'loopback source', frames: [make.frame({ src: '127.0.0.1' })], leaksTo: 'link' }
  ]
}

function links(make: Maker): SpoofClass[] {
  const plain = make.frame()
  const tagged = (type: number, tag: number): Buffer =>
    Buffer.concat([plain.subarray(0, 12), Buffer.from([type >> 8, type & 0xff, 0, tag]), plain.subarray(12)])
  const announce = (hardware: Buffer, sender: string, mark: string): Buffer =>
    ethernet(ALL, own, 0x0806, Buffer.concat([arp(hardware, sender, one.gateway), payload(mark)]))
  const announced = {
    legitimate: [announce(own, one.address, LEGIT)],
    counted: 'arp',
    leaksTo: 'link'
  } as const
  const other = { counted: 'other', leaksTo: 'link' } as const
  return [
    {
      name: 'foreign MAC',
      frames: [make.frame({}, host, mac('02:00:00:00:00:09'))],
      counted: 'mac',
      leaksTo: 'world'
    },
    { name: 'ARP for the gateway', frames: [announce(own, one.gateway, SPOOF)], ...announced },
    {
      name: 'ARP with foreign MAC',
      frames: [announce(mac(two.insideMac), one.address, SPOOF)],
      ...announced
    },
    { name: 'VLAN 7', frames: [tagged(0x8100, 7)], counted: 'vlan', leaksTo: 'link' },
    { name: 'priority tag (VLAN 0)', frames: [tagged(0x8100, 0)], counted: 'vlan', leaksTo: 'world' },
    { name: 'service VLAN (802.1ad)', frames: [tagged(0x88a8, 7)], counted: 'vlan', leaksTo: 'link' },
    { name: 'MPLS', frames: [ethernet(host, own, 0x8847, payload(SPOOF, 60))], ...other },
    {
      name: 'spanning tree (802.3)',
      frames: [ethernet(mac('01:80:c2:00:00:00'), own, 60, payload(SPOOF, 60))],
      ...other
    }
  ]
}

function protocols(make: Maker): SpoofClass[] {
  const inner = ipv4({ src: '203.0.113.7', dst: '198.18.0.1', protocol: UDP, body: payload(SPOOF) })
  const refused = { counted: 'protocol', leaksTo: 'world' } as const
  const gre = Buffer.concat([Buffer.from('00000800', 'hex'), inner])
  return [
    { name: 'GRE', frames: [make.frame({ protocol: 47, body: gre })], ...refused },
    { name: 'IPIP', frames: [make.frame({ protocol: 4, body: inner })], ...refused },
    { name: '6in4', frames: [make.frame({ protocol: 41, body: payload(SPOOF, 60) })], ...refused },
    { name: 'ESP', frames: [make.frame({ protocol: 50, body: payload(SPOOF, 60) })], ...refused },
    { name: 'SCTP', frames: [make.frame({ protocol: 132, body: payload(SPOOF, 60) })], ...refused },
    { name: 'IGMP', frames: [make.frame({ protocol: 2, body: payload(SPOOF) })], ...refused }
  ]
}

/** No router of IPv6 is the node to its vservers. */
function sixes(): SpoofClass[] {
  const six = (next: number, body: Buffer): Buffer[] => [
    ethernet(mac('33:33:00:00:00:01'), own, 0x86dd, ipv6(next, body))
  ]
  const datagram = udpBody(OWN.port, 5001, payload(SPOOF))
  const advert = icmpBody(134, 0, 0x40000708, payload(SPOOF))
  const options = Buffer.from('1100010400000000', 'hex')
  const pieceHeader = Buffer.from('1100000100000007', 'hex')
  return [
    { name: 'IPv6 source', frames: six(17, datagram), counted: 'ipv6', leaksTo: 'link' },
    { name: 'router advertisement', frames: six(58, advert), counted: 'ra', leaksTo: 'link' },
    {
      name: 'IPv6 hop-by-hop options',
      frames: six(0, Buffer.concat([options, datagram])),
      counted: 'extension',
      leaksTo: 'link'
    },
    {
      name: 'IPv6 fragment header',
      frames: six(44, Buffer.concat([pieceHeader, datagram])),
      counted: 'extension',
      leaksTo: 'link'
    }
  ]
}

function pieces(make: Maker): SpoofClass[] {
  const refused = { counted: 'fragment', leaksTo: 'world' } as const
  const segment = make.tcp(OWN.port).subarray(34)
  const long = Buffer.concat([segment, Buffer.alloc(600)])
  const piece = (protocol: number, body: Buffer, fragment: number): Buffer[] => [
    make.frame({ protocol, body, fragment })
  ]
  return [
    {
      name: 'first fragment of TCP',
      frames: piece(TCP, long.subarray(0, 640), MORE),
      legitimate: make.pieces(LEGIT),
      pauseMs: PIECES_PAUSE_MS,
      ...refused
    },
    { name: 'later fragment of TCP', frames: piece(TCP, payload(SPOOF), 10), ...refused },
    {
      name: 'tiny first fragment of UDP',
      frames: piece(UDP, udpBody(OTHERS.port, 5001, payload(SPOOF, 18)), MORE),
      ...refused
    },
    { name: 'tiny later fragment of UDP', frames: piece(UDP, payload(SPOOF, 18), MORE | 4), ...refused },
    {
      name: 'the reserved flag',
      frames: [make.frame({ fragment: 0x8000 })],
      ...refused
    }
  ]
}

function headers(make: Maker): SpoofClass[] {
  const body = udpBody(OWN.port, 5001, payload(LEGIT))
  // Three addresses to go by, or to be noted.
  const route = (type: number): number[] => [type, 15, 4, ...Array.from({ length: 12 }, () => 9), 0]
  const allowed = { legitimate: [make.frame({ body, options: route(7) })], counted: 'options' } as const
  const short = { counted: 'length', leaksTo: 'link' } as const
  return [
    // Kernels pass on no source routes unless they are told to.
    {
      name: 'loose source route',
      frames: [make.frame({ options: route(131) })],
      ...allowed,
      leaksTo: 'link'
    },
    {
      name: 'strict source route behind others',
      frames: [make.frame({ options: [1, 1, 1, 1, ...route(137)] })],
      ...allowed,
      leaksTo: 'link'
    },
    {
      name: 'security option',
      frames: [make.frame({ options: [130, 11, ...Array.from({ length: 9 }, () => 0), 0] })],
      ...allowed,
      leaksTo: 'world'
    },
    { name: 'total length beyond the frame', frames: [make.frame({ totalLength: 1400 })], ...short },
    { name: 'total length below the header', frames: [make.frame({ totalLength: 19 })], ...short },
    { name: 'header length of 16', frames: [make.frame({ headerWords: 4 })], ...short },
    { name: 'header longer than the packet', frames: [make.frame({ headerWords: 15 })], ...short },
    { name: 'IPv6 called IPv4', frames: [make.frame({ version: 6 })], ...short },
    { name: 'UDP length of 4', frames: [make.udp(OWN.port, SPOOF, 4)], ...short, leaksTo: 'world' },
    {
      name: 'UDP length beyond the packet',
      frames: [make.udp(OWN.port, SPOOF, 1400)],
      counted: 'malformed',
      leaksTo: 'world'
    },
    {
      name: 'TCP header of 12 bytes',
      frames: [make.tcp(OWN.port, FIN, SPOOF, { headerWords: 3 })],
      ...short,
      leaksTo: 'world'
    },
    {
      name: 'TCP cut off',
      frames: [
        make.frame({
          protocol: TCP,
          body: Buffer.concat([Buffer.from('1f901389', 'hex'), payload(SPOOF, 6)])
        })
      ],
      ...short,
      leaksTo: 'world'
    }
  ]
}

/** No router passes on what is for many. */
function addressees(make: Maker): SpoofClass[] {
  const ask = udpBody(68, 67, payload(SPOOF))
  const answer = udpBody(67, 68, payload(SPOOF))
  const many = { counted: 'multicast', leaksTo: 'link' } as const
  const all = { counted: 'broadcast', leaksTo: 'link' } as const
  return [
    { name: 'multicast', frames: [make.frame({ dst: '224.0.0.251' }, GROUP)], ...many },
    { name: 'multicast to the node’s MAC', frames: [make.frame({ dst: '239.1.2.3' })], ...many },
    { name: 'multicast MAC', frames: [make.frame({}, GROUP)], ...many },
    { name: 'broadcast', frames: [make.frame({ dst: '255.255.255.255' }, ALL)], ...all },
    { name: 'broadcast MAC', frames: [make.frame({}, ALL)], ...all },
    {
      name: 'DHCP request',
      frames: [make.frame({ src: '0.0.0.0', dst: '255.255.255.255', body: ask }, ALL)],
      counted: 'dhcp',
      leaksTo: 'link'
    },
    { name: 'DHCP answer', frames: [make.frame({ body: answer })], counted: 'dhcp', leaksTo: 'world' }
  ]
}

/** What connection tracking calls invalid; the rest is translated (see `translated`). */
function ports(make: Maker): SpoofClass[] {
  const fin = {
    legitimate: [make.tcp(OWN.port, FIN, LEGIT)],
    counted: 'untracked',
    leaksTo: 'world'
  } as const
  const reply = {
    legitimate: [make.icmp(0, 0, (OWN.id << 16) | 1, LEGIT)],
    counted: 'untracked',
    leaksTo: 'world'
  } as const
  return [
    { name: 'FIN from another slice’s port', frames: [make.tcp(OTHERS.port)], ...fin },
    { name: 'FIN from the node’s port', frames: [make.tcp(NODE_PORT)], ...fin },
    {
      name: 'echo reply of another slice’s identifier',
      frames: [make.icmp(0, 0, (OTHERS.id << 16) | 1)],
      ...reply
    },
    { name: 'ICMP router advertisement', frames: [make.icmp(9, 0, 0x01020708)], ...reply }
  ]
}

/** Ordinary packets from ports that are not the vserver's: they leave, from other ports. */
export interface TranslatedClass extends Pick<SpoofClass, 'name' | 'frames' | 'pauseMs'> {
  /** How many are sent; default as of all classes. */
  readonly count?: number
  /** The port that it must not leave from. */
  readonly port: number
}

export function translated({ world }: Parties): TranslatedClass[] {
  const make = new Maker(world)
  return [
    { name: 'UDP from another slice’s port', frames: [make.udp(OTHERS.port)], port: OTHERS.port },
    {
      name: 'UDP in pieces from another slice’s port',
      frames: make.pieces(SPOOF, OTHERS.port),
      port: OTHERS.port,
      count: 2000,
      pauseMs: PIECES_PAUSE_MS
    },
    { name: 'SYN from another slice’s port', frames: [make.tcp(OTHERS.port, 2)], port: OTHERS.port },
    { name: 'SYN from the node’s port', frames: [make.tcp(NODE_PORT, 2)], port: NODE_PORT }
  ]
}

/** What passes where a class names nothing. */
export function ordinary({ world }: Parties): Buffer {
  return new Maker(world).udp(OWN.port, LEGIT)
}

/** Pieces of datagrams from another slice's port whose last never comes. */
export function unfinished({ world }: Parties): Buffer {
  const make = new Maker(world)
  return make.frame({ body: udpBody(OTHERS.port, 5001, payload(SPOOF, 1186)), fragment: MORE })
}

/** A datagram in two pieces. */
export function inPieces({ world }: Parties): Buffer[] {
  return new Maker(world).pieces(LEGIT)
}

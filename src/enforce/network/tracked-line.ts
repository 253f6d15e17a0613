/**
 * Reads what conntrack(8) prints of one connection: a line of its list, or of its events. Lines of protocols that
 * vservers cannot speak are none of these.
 */

export interface Tuple {
  readonly source: string
  readonly destination: string
  /** Of ICMP: the identifier in `sourcePort`, and 0. */
  readonly sourcePort: number
  readonly destinationPort: number
  /** Absent while the kernel does not count. */
  readonly packets?: number
  readonly bytes?: number
}

export interface TrackedLine {
  readonly event?: 'NEW' | 'DESTROY'
  /** Of an event: when it was read, UTC ms. */
  readonly time?: number
  /** The kernel's number for the connection, unlike those of all others that there are now. */
  readonly id: number
  readonly protocol: FlowProtocol
  /** As the first packet came in, and as what comes back does. */
  readonly original: Tuple
  readonly reply: Tuple
  /** Seconds since its first packet, where the kernel keeps that. */
  readonly ageSeconds?: number
}

export const FLOW_PROTOCOLS = ['tcp', 'udp', 'icmp'] as const
export type FlowProtocol = (typeof FLOW_PROTOCOLS)[number]

/** A line that is longer is none of conntrack's. */
export const TRACKED_LINE_CHARS_MAX = 1024

const ADDRESS = '([0-9a-f.:]{2,45})'
const NUMBER = String.raw`(\d{1,15})`
const ENDS = `(?:sport=${NUMBER} dport=${NUMBER}|type=\\d{1,3} code=\\d{1,3} id=${NUMBER})`
const TUPLE = `src=${ADDRESS} dst=${ADDRESS} ${ENDS}(?: packets=${NUMBER} bytes=${NUMBER})?`
const EVENT = String.raw`\[(\d{1,12})\.(\d{6})\]\s+\[(NEW|DESTROY)\] `
const LINE = new RegExp(
  `^(?:${EVENT})?(tcp|udp|icmpv6|icmp) +\\d+ (?:\\d+ )?(?:[A-Z_0-9]+ )?${TUPLE} (?:\\[UNREPLIED\\] )?${TUPLE}((?: [^ ].*)?)$`
)

/** `undefined` for what is no such line. */
export function parseTrackedLine(line: string): TrackedLine | undefined {
  if (line.length > TRACKED_LINE_CHARS_MAX) return undefined
  const match = LINE.exec(line)
  if (match === null) return undefined
  const [, seconds, micros, event, protocol, ...fields] = match
  const rest = fields[14] ?? ''
  // Where the tuple of ICMP has a field of this name as well, that stands before what is left here.
  const id = / id=(\d{1,15})(?: |$)/.exec(rest)?.[1]
  if (id === undefined) return undefined
  const age = / delta-time=(\d{1,12})(?: |$)/.exec(rest)?.[1]
  return {
    ...(event === undefined ? {} : { event: event as 'NEW' | 'DESTROY', time: millis(seconds, micros) }),
    id: Number(id),
    protocol: protocol === 'icmpv6' ? 'icmp' : (protocol as FlowProtocol),
    original: tupleOf(fields.slice(0, 7)),
    reply: tupleOf(fields.slice(7, 14)),
    ...(age === undefined ? {} : { ageSeconds: Number(age) })
  }
}

function tupleOf(fields: readonly (string | undefined)[]): Tuple {
  const [source = '', destination = '', sourcePort, destinationPort, identifier, packets, bytes] = fields
  return {
    source,
    destination,
    sourcePort: Number(sourcePort ?? identifier ?? 0),
    destinationPort: Number(destinationPort ?? 0),
    ...(packets === undefined ? {} : { packets: Number(packets), bytes: Number(bytes) })
  }
}

function millis(seconds = '0', micros = '0'): number {
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
}

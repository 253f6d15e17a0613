/**
 * Flow records as an IPFIX file (RFC 7011, RFC 5655): messages of two templates and their data, both directions of a flow in
 * one record (RFC 5103), whose source is who sent the first packet.
 */
import { isIP, isIPv6 } from 'node:net'
import { addressBytes } from '../base/ip-address.ts'
import type { FlowEntry } from './flow-protocol.ts'

const VERSION = 10
const TEMPLATE_SET = 2
/** For information elements of the other direction. */
const REVERSE = 29_305
const HEADER_BYTES = 16
const SET_HEADER_BYTES = 4
/** Well below what a message may be, which is what two bytes can say. */
const MESSAGE_BYTES_MAX = 60_000
const VARIABLE = 0xffff
const TEXT_BYTES_MAX = 254

const PROTOCOL_NUMBERS = { icmp: 1, tcp: 6, udp: 17, gre: 47 } as const
const ICMP6_NUMBER = 58
/** IANA's registry of ends of flows. */
const END = { idle: 1, active: 2 } as const

interface Field {
  /** IANA's number of the information element. */
  readonly id: number
  readonly bytes: number
  readonly isReverse?: true
}

const FIELDS: readonly Field[] = [
  { id: 7, bytes: 2 }, // sourceTransportPort
  { id: 11, bytes: 2 }, // destinationTransportPort
  { id: 4, bytes: 1 }, // protocolIdentifier
  { id: 136, bytes: 1 }, // flowEndReason
  { id: 61, bytes: 1 }, // flowDirection: 0 came in, 1 went out
  { id: 152, bytes: 8 }, // flowStartMilliseconds
  { id: 153, bytes: 8 }, // flowEndMilliseconds
  { id: 86, bytes: 8 }, // packetTotalCount
  { id: 85, bytes: 8 }, // octetTotalCount
  { id: 86, bytes: 8, isReverse: true },
  { id: 85, bytes: 8, isReverse: true },
  { id: 371, bytes: VARIABLE }, // userName: the principal
  { id: 350, bytes: VARIABLE }, // virtualStationName: the vserver
  { id: 348, bytes: VARIABLE }, // virtualStationInterfaceName: the slice
  { id: 349, bytes: VARIABLE } // virtualStationUUID: the lease
]

/** Of each family its own template, in which addresses come first: source and destination. */
const TEMPLATES: Readonly<Record<4 | 6, { readonly id: number; readonly fields: readonly Field[] }>> = {
  4: { id: 256, fields: [{ id: 8, bytes: 4 }, { id: 12, bytes: 4 }, ...FIELDS] },
  6: { id: 257, fields: [{ id: 27, bytes: 16 }, { id: 28, bytes: 16 }, ...FIELDS] }
}
const FAMILIES = [4, 6] as const

interface DataRecord {
  readonly family: 4 | 6
  readonly bytes: Buffer
}

/** Makes messages of flows; the first has the templates. */
export class IpfixEncoder {
  #records = 0
  #hasTemplate = false

  /** `now` is UTC ms. Every message is whole, so that they may follow each other in a file. */
  encode(flows: readonly FlowEntry[], now: number): Buffer {
    const messages: Buffer[] = []
    let data: DataRecord[] = []
    let bytes = 0
    const flush = (): void => {
      if (data.length === 0 && this.#hasTemplate) return
      messages.push(this.#message(data, now))
      data = []
      bytes = 0
    }
    for (const flow of flows) {
      const record = encodeRecord(flow)
      if (bytes + record.bytes.length > MESSAGE_BYTES_MAX) flush()
      data.push(record)
      bytes += record.bytes.length
    }
    flush()
    return Buffer.concat(messages)
  }

  #message(records: readonly DataRecord[], now: number): Buffer {
    const data = FAMILIES.flatMap((family) => {
      const ofFamily = records.filter((record) => record.family === family)
      return ofFamily.length === 0
        ? []
        : [
            set(
              TEMPLATES[family].id,
              ofFamily.map(({ bytes }) => bytes)
            )
          ]
    })
    const sets = [
      ...(this.#hasTemplate ? [] : FAMILIES.map((family) => set(TEMPLATE_SET, [template(family)]))),
      ...data
    ]
    const body = Buffer.concat(sets)
    const header = Buffer.alloc(HEADER_BYTES)
    header.writeUInt16BE(VERSION, 0)
    header.writeUInt16BE(HEADER_BYTES + body.length, 2)
    header.writeUInt32BE(Math.floor(now / 1000), 4)
    // Counts the data records sent before.
    header.writeUInt32BE(this.#records % 2 ** 32, 8)
    header.writeUInt32BE(1, 12)
    this.#hasTemplate = true
    this.#records += records.length
    return Buffer.concat([header, body])
  }
}

function set(id: number, records: readonly Buffer[]): Buffer {
  const body = Buffer.concat(records)
  const header = Buffer.alloc(SET_HEADER_BYTES)
  header.writeUInt16BE(id, 0)
  header.writeUInt16BE(SET_HEADER_BYTES + body.length, 2)
  return Buffer.concat([header, body])
}

function template(family: 4 | 6): Buffer {
  const header = Buffer.alloc(4)
  header.writeUInt16BE(TEMPLATES[family].id, 0)
  header.writeUInt16BE(TEMPLATES[family].fields.length, 2)
  const fields = TEMPLATES[family].fields.map(({ id, bytes, isReverse = false }) => {
    const field = Buffer.alloc(isReverse ? 8 : 4)
    field.writeUInt16BE(isReverse ? id | 0x8000 : id, 0)
    field.writeUInt16BE(bytes, 2)
    if (isReverse) field.writeUInt32BE(REVERSE, 4)
    return field
  })
  return Buffer.concat([header, ...fields])
}

/** The values in the order of the family's template. */
function encodeRecord(flow: FlowEntry): DataRecord {
  const family = [flow.localAddress, flow.remoteAddress].some(isIPv6) ? 6 : 4
  const isOut = flow.begunBy === 'vserver'
  const local = { address: flow.localAddress, port: flow.localPort }
  const remote = { address: flow.remoteAddress, port: flow.remotePort }
  const sent = [flow.sentPackets, flow.sentBytes]
  const received = [flow.receivedPackets, flow.receivedBytes]
  const [source, destination] = isOut ? [local, remote] : [remote, local]
  const numbers = [flow.first, flow.last, ...(isOut ? [...sent, ...received] : [...received, ...sent])]
  const fixed = Buffer.alloc(7 + numbers.length * 8)
  fixed.writeUInt16BE(source.port, 0)
  fixed.writeUInt16BE(destination.port, 2)
  const isIcmp6 = family === 6 && flow.protocol === 'icmp'
  fixed.writeUInt8(isIcmp6 ? ICMP6_NUMBER : PROTOCOL_NUMBERS[flow.protocol], 4)
  fixed.writeUInt8(flow.isOpen ? END.active : END.idle, 5)
  fixed.writeUInt8(isOut ? 1 : 0, 6)
  for (const [index, number] of numbers.entries()) fixed.writeBigUInt64BE(BigInt(number), 7 + index * 8)
  const texts = [flow.principal ?? '', flow.vserver, flow.slice ?? '', flow.lease ?? '']
  const addresses = [source, destination].map(({ address }) => bytesOf(address, family))
  return { family, bytes: Buffer.concat([...addresses, fixed, ...texts.map(variable)]) }
}

/** An address of the other family says nothing of this end: it is left unspecified. */
function bytesOf(address: string, family: 4 | 6): Buffer {
  return isIP(address) === family ? Buffer.from(addressBytes(address)) : Buffer.alloc(family === 6 ? 16 : 4)
}

function variable(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8').subarray(0, TEXT_BYTES_MAX)
  return Buffer.concat([Buffer.from([bytes.length]), bytes])
}

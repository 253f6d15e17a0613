import test from 'ava'
import type { FlowEntry } from '../../src/daemon/flow-protocol.ts'
import { IpfixEncoder } from '../../src/daemon/ipfix.ts'
import { NOW } from '../ticket/fixtures.ts'

const FLOW: FlowEntry = {
  kind: 'flow',
  flow: 'a1',
  vserver: 'v-1',
  lease: `bafyrei${'a'.repeat(52)}`,
  slice: 'mesh',
  principal: '12D3KooWGRUKaNqYpzaPTGkQ9m7MEQ5s7cCUgmQ6TTCRUVRTTvK7',
  protocol: 'udp',
  localAddress: '198.51.100.1',
  localPort: 40_010,
  remoteAddress: '192.0.2.9',
  remotePort: 53,
  begunBy: 'vserver',
  first: NOW,
  last: NOW + 1500,
  sentPackets: 3,
  sentBytes: 300,
  receivedPackets: 2,
  receivedBytes: 5_000_000_000,
  isTracked: true,
  isOpen: false
}

/** Reads messages by what they say of themselves, as RFC 7011 has it; fields by number, `29305.85` of an enterprise. */
function readIpfix(file: Buffer): { readonly records: Map<string, Buffer>[]; readonly sequences: number[] } {
  const templates = new Map<number, { readonly name: string; readonly length: number }[]>()
  const records: Map<string, Buffer>[] = []
  const sequences: number[] = []
  for (let at = 0; at < file.length;) {
    if (file.readUInt16BE(at) !== 10) throw new Error('no IPFIX message')
    const end = at + file.readUInt16BE(at + 2)
    sequences.push(file.readUInt32BE(at + 8))
    for (let set = at + 16; set < end;) {
      const [id, setEnd] = [file.readUInt16BE(set), set + file.readUInt16BE(set + 2)]
      let place = set + 4
      if (id === 2) {
        const [template, count] = [file.readUInt16BE(place), file.readUInt16BE(place + 2)]
        place += 4
        const fields = []
        for (let field = 0; field < count; field++) {
          const [number, length] = [file.readUInt16BE(place), file.readUInt16BE(place + 2)]
          const enterprise = number >= 0x8000 ? `${file.readUInt32BE(place + 4)}.` : ''
          fields.push({ name: `${enterprise}${number & 0x7fff}`, length })
          place += enterprise === '' ? 4 : 8
        }
        templates.set(template, fields)
      } else {
        const fields = templates.get(id)
        if (fields === undefined) throw new Error(`no template ${id}`)
        while (place < setEnd) {
          const record = new Map<string, Buffer>()
          for (const { name, length } of fields) {
            const bytes = length === 0xffff ? file.readUInt8(place++) : length
            record.set(name, file.subarray(place, place + bytes))
            place += bytes
          }
          records.push(record)
        }
      }
      if (place !== setEnd && id === 2) throw new Error('a set of another length than it says')
      set = setEnd
    }
    at = end
  }
  return { records, sequences }
}

const numberOf = (record: Map<string, Buffer> | undefined, name: string): number =>
  Number.parseInt(record?.get(name)?.toString('hex') ?? '', 16)

test('a reader of RFC 7011 finds each flow with both its directions and whose it was', (t) => {
  const inbound: FlowEntry = { ...FLOW, begunBy: 'remote', protocol: 'tcp', localPort: 22, isOpen: true }
  const { records } = readIpfix(new IpfixEncoder().encode([FLOW, inbound], NOW))
  t.is(records.length, 2)
  const [out, back] = records
  const shape = (record: Map<string, Buffer> | undefined): unknown => [
    [...(record?.get('8') ?? [])].join('.'),
    numberOf(record, '7'),
    [...(record?.get('12') ?? [])].join('.'),
    ...['11', '4', '136', '61', '152', '153', '86', '85', '29305.86', '29305.85'].map((name) =>
      numberOf(record, name)
    )
  ]
  const times = [NOW, NOW + 1500]
  t.deepEqual(shape(out), [
    '198.51.100.1',
    40_010,
    '192.0.2.9',
    53,
    17,
    1,
    1,
    ...times,
    3,
    300,
    2,
    5_000_000_000
  ])
  t.deepEqual(shape(back), ['192.0.2.9', 53, '198.51.100.1', 22, 6, 2, 0, ...times, 2, 5_000_000_000, 3, 300])
  const texts = ['371', '350', '348', '349'].map((name) => out?.get(name)?.toString())
  t.deepEqual(texts, [FLOW.principal, FLOW.vserver, FLOW.slice, FLOW.lease])
})

test('flows of IPv6 have a template of their own, among those of IPv4', (t) => {
  const six: FlowEntry = {
    ...FLOW,
    protocol: 'icmp',
    localAddress: '2001:db8::1',
    remoteAddress: '2001:db8:0:1::9',
    remotePort: 0
  }
  const { records } = readIpfix(new IpfixEncoder().encode([six, FLOW, six], NOW))
  t.is(records.length, 3)
  t.is(records[0]?.get('8')?.toString('hex'), 'c6336401')
  for (const record of records.slice(1)) {
    t.is(record.get('27')?.toString('hex'), '20010db8000000000000000000000001')
    t.is(record.get('28')?.toString('hex'), '20010db8000000010000000000000009')
    t.is(numberOf(record, '4'), 58)
    t.is(record.get('350')?.toString(), FLOW.vserver)
  }
})

test('a flow of IPv6 whose own end is noted as IPv4 or not known is a whole record of IPv6', (t) => {
  const remoteAddress = '2001:db8:0:1::9'
  const odd = ['198.51.100.1', '::'].map((localAddress) => ({ ...FLOW, localAddress, remoteAddress }))
  const { records } = readIpfix(new IpfixEncoder().encode([...odd, FLOW], NOW))
  t.is(records.length, 3)
  t.is(records[0]?.get('8')?.toString('hex'), 'c6336401')
  for (const record of records.slice(1)) {
    t.is(record.get('27')?.toString('hex'), '0'.repeat(32))
    t.is(record.get('28')?.toString('hex'), '20010db8000000010000000000000009')
    t.is(record.get('350')?.toString(), FLOW.vserver)
  }
})

test('flows of nobody known, and texts of any length, are records as well', (t) => {
  const { lease: _lease, slice: _slice, principal: _principal, ...nobody } = FLOW
  const { records } = readIpfix(new IpfixEncoder().encode([nobody, { ...FLOW, slice: 'x'.repeat(128) }], NOW))
  t.is(records[0]?.get('371')?.length, 0)
  t.is(records[1]?.get('348')?.length, 128)
})

test('many flows are messages one after the other, each within its bound, numbered by what came before', (t) => {
  const encoder = new IpfixEncoder()
  const file = Buffer.concat([
    encoder.encode([], NOW),
    encoder.encode(
      Array.from({ length: 1500 }, () => FLOW),
      NOW
    ),
    encoder.encode([FLOW], NOW + 1000)
  ])
  const { records, sequences } = readIpfix(file)
  t.is(records.length, 1501)
  t.deepEqual(sequences.slice(0, 2), [0, 0])
  t.is(sequences.at(-1), 1500)
  t.true(sequences.length >= 4)
})

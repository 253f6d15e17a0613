import test from 'ava'
import { checkCapture } from '../../src/daemon/raw-check.ts'
import { isCapture, readCapture } from '../../src/daemon/capture.ts'
import { planLink } from '../../src/enforce/network/address-plan.ts'

const PORTS = [{ protocol: 'udp' as const, first: 9000, last: 9000 }]
const ONE = planLink(1)
const LEASE = { rawSockets: true, ports: PORTS, address: ONE.address, address6: ONE.address6 }
/** An empty datagram from port 9000, or 9001, to port 53. */
const datagram = (port: number): Buffer =>
  Buffer.from(`4500001c000000004011000064400102c0000208${port.toString(16)}003500080000`, 'hex')
/** The same over IPv6. */
const datagram6 = (port: number): Buffer =>
  Buffer.from(
    `6000000000081140fd51ce51ce510001000000000000000220010470000000000000000000000008${port.toString(16)}003500080000`,
    'hex'
  )
const ethernet = (
  type: number,
  payload: Buffer,
  { to = ONE.hostMac, from = ONE.insideMac }: { readonly to?: string; readonly from?: string } = {}
): Buffer => {
  const macs = Buffer.from(`${to}${from}`.replaceAll(':', ''), 'hex')
  const frame = Buffer.concat([macs, Buffer.from([type >> 8, type & 0xff]), payload])
  return Buffer.concat([frame, Buffer.alloc(Math.max(0, 60 - frame.length))])
}
const FRAMES = [
  ethernet(0x0800, datagram(9000)),
  ethernet(0x0806, Buffer.alloc(28)),
  ethernet(0x8100, datagram(9000)),
  ethernet(0x86dd, datagram6(9000)),
  ethernet(0x86dd, datagram6(9001)),
  ethernet(0x86dd, Buffer.alloc(40)),
  ethernet(0x0800, datagram(9001))
]
const OUTCOMES = ['kept', 'related', 'dropped vlan', 'kept', 'shared', 'dropped extension', 'shared']

type Order = 'LE' | 'BE'
function words(order: Order, ...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4)
  for (const [at, value] of values.entries())
    if (order === 'LE') bytes.writeUInt32LE(value, at * 4)
    else bytes.writeUInt32BE(value, at * 4)
  return bytes
}
const halves = (order: Order, first: number, second: number): number =>
  order === 'LE' ? (second << 16) | first : ((first << 16) | second) >>> 0

function classic(order: Order, linkType: number, frames: readonly Buffer[], magic = 0xa1b2c3d4): Buffer {
  const head = words(order, magic, halves(order, 2, 4), 0, 0, 65_535, linkType)
  const records = frames.flatMap((frame) => [words(order, 1, 2, frame.length, frame.length), frame])
  return Buffer.concat([head, ...records])
}

function block(order: Order, type: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  const padded = Buffer.concat([body, Buffer.alloc((4 - (body.length % 4)) % 4)])
  const length = padded.length + 12
  return Buffer.concat([words(order, type, length), padded, words(order, length)])
}

function section(order: Order, linkType: number, frames: readonly Buffer[], isSimple = false): Buffer {
  return Buffer.concat([
    block(order, 0x0a0d0d0a, words(order, 0x1a2b3c4d, halves(order, 1, 0), 0xffffffff, 0xffffffff)),
    block(order, 1, words(order, halves(order, linkType, 0), 65_535)),
    // Blocks of other kinds are passed over.
    block(order, 5, words(order, 0, 0, 0)),
    ...frames.map((frame) =>
      isSimple
        ? block(order, 3, words(order, frame.length), frame)
        : block(order, 6, words(order, 0, 0, 0, frame.length, frame.length), frame)
    )
  ])
}

const outcomes = (bytes: Buffer): string[] =>
  checkCapture(bytes, LEASE, 100).map(({ outcome, reason }) =>
    reason === undefined || outcome !== 'dropped' ? outcome : `${outcome} ${reason}`
  )

for (const order of ['LE', 'BE'] as const) {
  test(`each packet of a capture gets its verdict, in either format, ${order}`, (t) => {
    for (const bytes of [
      classic(order, 1, FRAMES),
      classic(order, 1, FRAMES, 0xa1b23c4d),
      section(order, 1, FRAMES),
      section(order, 1, FRAMES, true),
      Buffer.concat([section(order === 'LE' ? 'BE' : 'LE', 1, []), section(order, 1, FRAMES)])
    ]) {
      t.true(isCapture(bytes))
      t.deepEqual(outcomes(bytes), OUTCOMES)
    }
  })
}

test('packets without a frame, and those that were captured on any device, are read as well', (t) => {
  const bare = [datagram(9000), datagram6(9000), datagram6(9000).subarray(0, 47)]
  t.deepEqual(outcomes(classic('LE', 101, bare)), ['kept', 'kept', 'dropped length'])
  const cooked = Buffer.concat([Buffer.alloc(14), Buffer.from([8, 0]), datagram(9001)])
  t.deepEqual(outcomes(classic('LE', 113, [cooked])), ['shared'])
  const cookedTwo = Buffer.concat([Buffer.from([8, 0]), Buffer.alloc(18), datagram(9000)])
  t.deepEqual(outcomes(section('LE', 276, [cookedTwo])), ['kept'])
  const cookedSix = Buffer.concat([Buffer.from([0x86, 0xdd]), Buffer.alloc(18), datagram6(9001)])
  t.deepEqual(outcomes(section('LE', 276, [cookedSix])), ['shared'])
})

test('whose frames they are and whom they are for is looked at where the capture has it', (t) => {
  for (const [type, packet] of [
    [0x0800, datagram(9000)],
    [0x86dd, datagram6(9000)]
  ] as const) {
    const frames = [
      {},
      { from: planLink(2).insideMac },
      { to: 'ff:ff:ff:ff:ff:ff' },
      { to: '33:33:00:00:00:01' },
      { to: '02:00:00:00:00:09' }
    ].map((ends) => ethernet(type, packet, ends))
    const expected = ['kept', 'dropped mac', 'dropped broadcast', 'dropped multicast', 'dropped']
    t.deepEqual(outcomes(classic('LE', 1, frames)), expected)
  }
})

test('what a sniffer was still writing is left out, and there is a bound', (t) => {
  for (const whole of [classic('LE', 1, FRAMES), section('LE', 1, FRAMES)]) {
    t.deepEqual(outcomes(whole.subarray(0, -1)), OUTCOMES.slice(0, -1))
    t.is(readCapture(whole, 2).length, 2)
  }
  t.deepEqual(outcomes(classic('LE', 1, [])), [])
})

test('a packet that was not captured whole is judged by its headers, or not at all', (t) => {
  const long = Buffer.concat([datagram(9000), Buffer.alloc(1000)])
  long.writeUInt16BE(long.length, 2)
  long.writeUInt16BE(long.length - 20, 24)
  const record = (captured: number): Buffer =>
    Buffer.concat([
      classic('LE', 101, []),
      words('LE', 1, 2, captured, long.length),
      long.subarray(0, captured)
    ])
  t.deepEqual(outcomes(record(100)), ['kept'])
  const six = Buffer.concat([datagram6(9000), Buffer.alloc(1000)])
  six.writeUInt16BE(six.length - 40, 4)
  const cut = [words('LE', 1, 2, 60, six.length), six.subarray(0, 60)]
  t.deepEqual(outcomes(Buffer.concat([classic('LE', 101, []), ...cut])), ['kept'])
  t.throws(() => outcomes(record(30)), { code: 'USAGE', message: /packet 1 .* too little/ })
})

test('what is no capture, of no known link, or broken is USAGE', (t) => {
  t.false(isCapture(Buffer.from('4500001c00000000')))
  for (const bytes of [
    Buffer.from('nothing of the kind'),
    classic('LE', 105, FRAMES),
    Buffer.concat([section('LE', 1, []), words('LE', 6, 13, 0, 0)]),
    Buffer.concat([section('LE', 1, []), block('LE', 6, words('LE', 7, 0, 0, 4, 4, 0))]),
    Buffer.concat([section('LE', 1, []), block('LE', 6, words('LE', 0, 0, 0, 400, 400, 0))])
  ]) {
    t.throws(() => checkCapture(bytes, LEASE, 10), { code: 'USAGE' })
  }
})

test('any bytes are packets or refused', (t) => {
  const good = section('LE', 1, FRAMES)
  for (let at = 0; at < good.length; at++) {
    for (const value of [0, 1, 0x7f, 0xff]) {
      const changed = Buffer.from(good)
      changed[at] = value
      try {
        checkCapture(changed, LEASE, 100)
      } catch (error) {
        t.is((error as { code?: string }).code, 'USAGE', `${at} ${value}: ${String(error)}`)
      }
    }
  }
  t.pass()
})

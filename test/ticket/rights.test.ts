import test from 'ava'
import { rightsSchema } from '../../src/ticket/resource-schema.ts'
import {
  administrativeRights,
  CAPABILITY_OF,
  CAPABILITY_RIGHTS,
  RIGHTS,
  rightsFault
} from '../../src/ticket/rights.ts'
import { parse } from '../../src/wire/codec.ts'

const PORT = [{ protocol: 'tcp' as const, first: 20_000, last: 20_000 }]

test('rights of ordinary slices go together with ports, and so do none', (t) => {
  t.is(rightsFault([], PORT), undefined)
  t.is(rightsFault(['raw-socket'], PORT), undefined)
})

test('capabilities are for administrative slices, which have neither ports nor raw sockets of their own', (t) => {
  t.is(rightsFault(['administrative'], []), undefined)
  t.is(rightsFault(['administrative', ...CAPABILITY_RIGHTS], []), undefined)
  for (const right of CAPABILITY_RIGHTS) {
    t.regex(rightsFault([right], []) ?? '', new RegExp(`${right} needs the right administrative`))
    t.regex(rightsFault(['raw-socket', right], PORT) ?? '', /needs the right administrative/)
  }
  t.regex(rightsFault(['administrative', 'raw-socket'], []) ?? '', /lease cap-net-raw instead/)
  t.regex(rightsFault(['administrative'], PORT) ?? '', /own no ports/)
})

test('no capability can be leased that is the root of the host by another name', (t) => {
  t.deepEqual(Object.values(CAPABILITY_OF), [
    'CAP_KILL',
    'CAP_NET_ADMIN',
    'CAP_NET_BIND_SERVICE',
    'CAP_NET_RAW',
    'CAP_SYS_NICE',
    'CAP_SYS_TIME'
  ])
  for (const right of ['cap-sys-admin', 'cap-sys-ptrace', 'cap-setuid', 'toString', 'constructor']) {
    t.throws(
      () => parse(rightsSchema, ['administrative', right], 'PROTOCOL_ERROR', 'rights'),
      undefined,
      right
    )
    t.deepEqual(administrativeRights([right]), [])
  }
})

test('rights are each named once', (t) => {
  t.deepEqual(parse(rightsSchema, [...RIGHTS], 'PROTOCOL_ERROR', 'rights'), RIGHTS)
  t.throws(() => parse(rightsSchema, ['raw-socket', 'raw-socket'], 'PROTOCOL_ERROR', 'rights'))
})

import test from 'ava'
import { PortTable } from '../../src/agent/port-table.ts'
import type { PortRange } from '../../src/ticket/ports.ts'
import { delegate, HOUR, issue, makeKey, NOW } from '../ticket/fixtures.ts'

const [node, agent, holder] = [makeKey(), makeKey(), makeKey()]
const delegation = delegate(node, agent)
const TERM = { notBefore: NOW, notAfter: NOW + HOUR }
const ALLOWED: PortRange[] = [
  { protocol: 'tcp', first: 9000, last: 9099 },
  { protocol: 'tcp', first: 9100, last: 9200 },
  { protocol: 'gre', first: 1, last: 4_294_967_295 }
]
const ports = (protocol: 'tcp' | 'gre', first: number, last = first): PortRange => ({ protocol, first, last })

function tableWith(...taken: PortRange[][]): PortTable {
  const table = new PortTable()
  for (const [index, ranges] of taken.entries()) {
    table.add(issue(delegation, agent, holder, { seq: index + 1, ports: ranges }))
  }
  return table
}

test('named ranges come as one range each, across neighbours of the share, and any is the first free', (t) => {
  const table = tableWith([ports('tcp', 9000, 9010)], [ports('gre', 1, 4_000_000_000)])
  const wishes = [
    { protocol: 'tcp' as const },
    { protocol: 'tcp' as const, port: 9095, last: 9105 },
    { protocol: 'tcp' as const, port: 9011 },
    { protocol: 'gre' as const },
    { protocol: 'gre' as const }
  ]
  t.deepEqual(table.choose(wishes, ALLOWED, TERM), {
    ports: [
      ports('tcp', 9012),
      ports('tcp', 9095, 9105),
      ports('tcp', 9011),
      ports('gre', 4_000_000_001),
      ports('gre', 4_000_000_002)
    ]
  })
})

test('a port that cannot be had is named, with who has it or where it lies', (t) => {
  const table = tableWith([ports('tcp', 9000, 9010)])
  const fault = (wish: object): string => {
    const choice = table.choose([{ protocol: 'tcp', ...wish }], ALLOWED, TERM)
    return 'fault' in choice ? choice.fault : ''
  }
  const until = new Date(NOW + HOUR).toISOString()
  t.is(
    fault({ port: 9005, last: 9020 }),
    `tcp/9000-9010 of this node is held by slice mesh of ${holder.principal} until ${until}`
  )
  t.regex(
    fault({ port: 80 }),
    /^tcp\/80 is not among the ports of this node that the agent may grant: tcp\/9000-9099, tcp\/9100-9200$/
  )
  t.regex(fault({ port: 9199, last: 9201 }), /^tcp\/9199-9201 is not among/)
  t.is(fault({ protocol: 'udp' }), 'udp/any: none of what the agent may grant of this node is free: none')
  const twice = table.choose(
    [
      { protocol: 'tcp', port: 9050 },
      { protocol: 'tcp', port: 9040, last: 9060 }
    ],
    ALLOWED,
    TERM
  )
  t.deepEqual(twice, { fault: 'tcp/9040-9060 is asked for twice' })
})

test('a line keeps its own ports, others do not get them, and all do when it is out', (t) => {
  const table = new PortTable()
  const ticket = issue(delegation, agent, holder, { ports: [ports('tcp', 9001)] })
  table.add(ticket)
  table.add(ticket)
  const wanted = [ports('tcp', 9001)]
  t.regex(table.fault(wanted, ALLOWED, TERM) ?? '', /held by slice mesh/)
  t.is(table.fault(wanted, ALLOWED, { notBefore: NOW + HOUR, notAfter: NOW + 2 * HOUR }), undefined)
  t.is(
    table.fault(wanted, ALLOWED, TERM, [ticket.id, holder.principal, node.principal, 'mesh'].join(' ')),
    undefined
  )
  table.remove(ticket)
  t.is(table.fault(wanted, ALLOWED, TERM), undefined)
})

import test from 'ava'
import fc from 'fast-check'
import { History, MINUTE, sized, steps } from './book-histories.ts'
import type { Issued } from '../../src/agent/node-account.ts'
import type { TicketRequest } from '../../src/protocol/agent-protocol.ts'

const HISTORIES = 10_000
/** Of each way to cheat. */
const CHEATED_HISTORIES = 2000

test('whatever nodes, holders, other agents, disk and clock do, nothing can be proven of an honest book', (t) => {
  let issued = 0
  fc.assert(
    fc.property(steps({ renewals: true }), fc.func(fc.boolean()), (all, isKept) => {
      const history = new History().play(all)
      issued += history.out.length
      t.deepEqual(history.findings(), [])
      t.deepEqual(history.findings(history.out.filter(({ id }) => isKept(id))), [])
    }),
    { numRuns: HISTORIES }
  )
  t.true(issued > 2 * HISTORIES, `${issued} tickets`)
})

const request = (size: number, changes: Partial<TicketRequest> = {}): TicketRequest => ({
  node: 'node-a',
  resources: sized(size),
  ports: [],
  rights: [],
  durationMs: 10 * MINUTE,
  ...changes
})

/** What each does after a history in which it behaved; gives false when there was nothing to gain by it. */
const CHEATS: Readonly<Record<string, (history: History) => boolean>> = {
  'issues past its limit'(history) {
    const source = history.usable()
    while (history.issue(request(1), 'holder') !== undefined);
    const { notBefore, notAfter } = termOf(history)
    history.sign(source, { holder: 'friend', resources: sized(1), ports: [], notBefore, notAfter })
    return true
  },
  'gives one port to two'(history) {
    history.usable()
    const wish = { protocol: 'tcp' } as const
    const first = history.issue(request(0, { ports: [wish] }), 'holder')
    const source = first && history.book.sourceOf(first.ticket)
    if (source === undefined || first === undefined) return false
    const { ports, notAfter } = first.ticket.body
    const term = { notBefore: notAfter - 1, notAfter }
    history.sign(source, { holder: 'friend', resources: sized(0), ports, ...term })
    return true
  },
  'uses a sequence number twice'(history) {
    const source = history.usable()
    const term = termOf(history)
    const { ticket } = history.sign(source, { holder: 'holder', resources: sized(0), ports: [], ...term })
    const { seq } = ticket.body
    history.sign(source, { holder: 'friend', resources: sized(0), ports: [], ...term, seq })
    return true
  },
  'widens what it has'(history) {
    const source = history.usable()
    const { notBefore } = termOf(history)
    const notAfter = source.parent.body.notAfter + 1
    history.sign(source, { holder: 'friend', resources: sized(0), ports: [], notBefore, notAfter })
    return true
  },
  'loosens a bound of what it has'(history) {
    const source = history.usable()
    const icmpBps = (source.parent.body.shaping?.icmpBps ?? 0) + 1
    if (icmpBps === 1) return false
    const term = termOf(history)
    history.sign(source, { holder: 'friend', resources: sized(0), ports: [], ...term, shaping: { icmpBps } })
    return true
  },
  'gives a larger share than it has'(history) {
    const source = history.usable()
    const egressShare = (source.parent.body.shaping?.egressShare ?? 1) + 1
    const shaping = { ...source.parent.body.shaping, egressShare }
    history.sign(source, { holder: 'friend', resources: sized(0), ports: [], ...termOf(history), shaping })
    return true
  },
  'counts a lapsed hold as free'(history) {
    history.usable()
    while (history.issue(request(1), 'holder') !== undefined);
    const lapsed = history.book.issued().findLast(isOfHolder)
    if (lapsed === undefined) return false
    history.book.settle([lapsed])
    if (history.issue(request(1), 'friend') !== undefined) throw new TypeError('an honest book gave it away')
    history.book.unrecord(lapsed)
    // The book may hold more against itself than anybody else can: then there was nothing to gain.
    return history.issue(request(1), 'friend') !== undefined && history.isTooMuchOut()
  }
}

function isOfHolder({ ticket }: Issued): boolean {
  return ticket.body.holder === 'holder'
}

function termOf({ now }: History): { notBefore: number; notAfter: number } {
  return { notBefore: now - MINUTE, notAfter: now + 10 * MINUTE }
}

for (const [name, cheat] of Object.entries(CHEATS)) {
  test(`an agent that ${name} is always found`, (t) => {
    let tried = 0
    fc.assert(
      fc.property(steps({ renewals: false }), (all) => {
        const history = new History().play(all)
        t.deepEqual(history.findings(), [])
        if (!cheat(history)) return
        tried += 1
        t.true(history.findings().length > 0)
      }),
      { numRuns: CHEATED_HISTORIES }
    )
    t.true(tried > CHEATED_HISTORIES / 4, `${tried} times`)
  })
}

const LONG = { memory: 10, percent: 100, from: -1, minutes: 300 }
const SHORT = { ...LONG, minutes: 60 }
const full = (minutes: number): TicketRequest => request(10, { durationMs: minutes * MINUTE })

/** The first node says that the last ticket came to nothing, and takes it out of the count or not. */
function lapse(history: History, counts: number[] | 'due' = 'due'): void {
  history.play([{ kind: 'settle', index: 0 }])
  history.delegate(0, SHORT, counts)
}

test('what came to nothing counts until the node delegates anew without it', (t) => {
  const history = new History()
  t.truthy(history.issue(full(50), 'holder'))
  history.play([{ kind: 'settle', index: 0 }])
  t.is(history.issue(request(1), 'holder'), undefined)
  history.delegate(0, SHORT, [0])
  t.is(history.issue(request(1), 'holder'), undefined, 'the node counts it still')
  history.delegate(0, SHORT, 'due')
  t.truthy(history.issue(full(50), 'holder'))
  t.deepEqual(history.findings(), [])
})

test('a delegation that names a ticket which the book has forgotten is not taken', (t) => {
  const history = new History()
  history.issue(full(50), 'holder')
  lapse(history)
  t.truthy(history.issue(request(4), 'holder'))
  const before = history.book.delegation('node-a', history.now)
  history.delegate(0, SHORT, [1])
  t.is(history.book.delegation('node-a', history.now), before)
})

test('an older delegation that is handed over again after the newer one ended is not issued from anew', (t) => {
  const history = new History()
  const [first] = history.parents
  history.issue(full(280), 'holder')
  lapse(history)
  history.play([
    { kind: 'wait', minutes: 70 },
    { kind: 'drop' },
    { kind: 'restart' },
    { kind: 'hand again', index: 0 }
  ])
  t.not(history.book.delegation('node-a', history.now)?.id, first?.id)
  t.is(history.issue(full(100), 'holder'), undefined)
  t.deepEqual(history.findings(), [])
})

test('a clock set back does not bring back the time of tickets that were forgotten', (t) => {
  const history = new History()
  t.truthy(history.issue(full(50), 'holder'))
  history.play([{ kind: 'wait', minutes: 52 }, { kind: 'drop' }, { kind: 'wait', minutes: -40 }])
  t.truthy(history.issue(full(50), 'holder'))
  t.deepEqual(history.findings(), [])
})

test('a line keeps its ports and counts once, for its holder only and never for more', (t) => {
  const history = new History()
  const first = history.issue(request(6, { ports: [{ protocol: 'tcp' }] }), 'holder')
  const supersedes = first?.ticket.id ?? ''
  const { shaping = {} } = first?.ticket.body ?? {}
  const next = { supersedes, shaping, durationMs: 20 * MINUTE }
  t.is(history.issue(request(6, next), 'thief'), undefined)
  t.is(history.issue(request(7, next), 'holder'), undefined)
  t.is(history.issue({ ...request(6, next), node: 'node-b' }, 'holder'), undefined)
  const second = history.issue(request(6, next), 'holder')
  t.deepEqual(second?.ticket.body.ports, first?.ticket.body.ports)
  t.truthy(history.issue(request(4), 'holder'), 'the line is counted once')
  t.is(history.issue(request(1), 'holder'), undefined)
  t.is(history.issue(request(1, { supersedes: second?.ticket.id ?? '', shaping }), 'holder'), undefined)
  t.deepEqual(history.findings(), [])
})

test('what is said to be available is granted', (t) => {
  fc.assert(
    fc.property(steps({ renewals: true }), (all) => {
      const history = new History().play(all)
      for (const node of history.book.nodes(history.now)) {
        const available = history.book.available(node, history.now)
        if (available === undefined) return t.fail()
        const { memoryBytes } = available.resources
        const asked = request(memoryBytes, { node, durationMs: 1 })
        const limit = history.book.sources().map(({ parent }) => parent.body.resources.memoryBytes)
        // A ticket for nothing is refused where too much is out already.
        if (memoryBytes > 0 && memoryBytes <= Math.min(...limit)) t.truthy(history.issue(asked, 'holder'))
      }
      return undefined
    }),
    { numRuns: 300 }
  )
})

test('where there is no room for more nodes, one that is known takes the place of an unknown one without tickets', (t) => {
  const history = new History()
  const { book } = history
  const isKnown = (node: string): boolean => node !== 'node-b' && node !== 'made-up'
  t.false(book.makeRoom('made-up', isKnown, history.now).hasRoom)
  history.issue({ ...request(1), node: 'node-b' }, 'holder')
  t.false(book.makeRoom('node-c', isKnown, history.now).hasRoom, 'a ticket of node-b is out')
  history.play([{ kind: 'wait', minutes: 12 }, { kind: 'drop' }])
  const { hasRoom, dropped } = book.makeRoom('node-c', isKnown, history.now)
  t.true(hasRoom)
  t.is(dropped.length, 1)
  t.deepEqual(book.nodes(history.now), ['node-a'])
})

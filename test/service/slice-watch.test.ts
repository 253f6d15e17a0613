import test, { type ExecutionContext } from 'ava'
import type { SliceNews } from '../../src/service/slice-event.ts'
import { sliceChanges, withEvent } from '../../src/service/slice-event.ts'
import type { SliceView } from '../../src/service/slice.ts'
import { settle } from '../base/manual-clock.ts'
import { overlay, slice, type Overlay } from './overlay.ts'

const SECOND = 1000
const MINUTE = 60 * SECOND
const POLL_MS = 10 * SECOND

interface Watching {
  readonly heard: SliceNews[]
  readonly ended: Promise<void>
  leave(): Promise<void>
}

function watch(t: ExecutionContext, { services }: Overlay, name = 'mesh'): Watching {
  const controller = new AbortController()
  const heard: SliceNews[] = []
  const read = async (): Promise<void> => {
    for await (const news of services.watch(name, { signal: controller.signal })) heard.push(news)
  }
  const ended = read().catch((error: unknown) => {
    if (!controller.signal.aborted) throw error
  })
  const leave = async (): Promise<void> => {
    controller.abort(new Error('enough'))
    await ended
  }
  t.teardown(leave)
  return { heard, ended, leave }
}

/** What was heard since the beginning, as `type node`. */
function told({ heard }: Watching): string[] {
  return heard.flatMap((news) => {
    if ('slice' in news) return []
    return 'member' in news ? `${news.type} ${news.member.nodeName}` : news.type
  })
}

const statuses = ({ calls }: Overlay): number => calls.filter((call) => call.startsWith('status')).length

test('who watches a slice hears of renewals, of ends and of the end of all', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  await one.services.create(slice({ count: 2, leaseMs: MINUTE }))
  const watching = watch(t, one)
  await settle()
  const [first] = watching.heard
  t.true(first !== undefined && 'slice' in first && first.slice.members.length === 2)
  await one.clock.advance(30 * SECOND)
  await one.services.renew('mesh')
  await settle()
  t.deepEqual(told(watching), ['lease:renew n0', 'lease:renew n1'])
  await one.clock.advance(MINUTE)
  await watching.ended
  t.deepEqual(told(watching).slice(2), ['lease:expire n0', 'lease:expire n1', 'end'])
  t.deepEqual(watching.heard.at(-1), { type: 'end', reason: 'expired' })
})

test('a slice that is deleted ends for who watches it', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  await one.services.create(slice({ count: 2 }))
  const watching = watch(t, one)
  await settle()
  await one.services.delete('mesh')
  await watching.ended
  t.true(told(watching).includes('slice:state'))
  t.deepEqual(watching.heard.at(-1), { type: 'end', reason: 'deleted' })
})

test('a program that ends and a node that does not answer are told when nodes are asked next', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  await one.services.create(slice({ count: 2 }))
  const watching = watch(t, one)
  await settle()
  const [vserver = ''] = (await one.nodes[0]?.enforcer.running()) ?? []
  await one.nodes[0]?.enforcer.stopProgram(vserver)
  one.fault = (method, node) => (method === 'status' && node === 'n1' ? 'unreachable' : undefined)
  await one.clock.advance(POLL_MS - 1)
  t.deepEqual(told(watching), [])
  await one.clock.advance(1)
  t.deepEqual(told(watching), ['member:state n0', 'member:state n1'])
  const states = watching.heard.flatMap((news) => ('member' in news ? [news.member] : []))
  t.deepEqual(
    states.map(({ state, exitCode }) => ({ state, exitCode })),
    [
      { state: 'exited', exitCode: 143 },
      { state: 'unknown', exitCode: undefined }
    ]
  )
})

test('a lease that could not be renewed is told with the reason, and the member goes on', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(slice({ count: 1, leaseMs: MINUTE, renew: true }))
  const watching = watch(t, one)
  await settle()
  one.fault = (method) => (method === 'renewLease' ? 'unreachable' : undefined)
  await one.clock.advance(50 * SECOND)
  const failures = watching.heard.filter((news) => 'type' in news && news.type === 'lease:fail')
  t.true(failures.length > 0)
  t.like(failures[0], { reason: { code: 'PEER_UNREACHABLE' }, member: { nodeName: 'n0', state: 'running' } })
  one.fault = () => undefined
  await one.services.renew('mesh')
  await settle()
  t.true(told(watching).includes('lease:renew n0'))
})

test('nodes are asked once for all who watch, at the interval, and by nobody when none does', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(slice({ count: 1 }))
  const watching = [watch(t, one), watch(t, one), watch(t, one)]
  await settle()
  const before = statuses(one)
  await one.clock.advance(3 * POLL_MS)
  t.is(statuses(one) - before, 3)
  for (const each of watching) await each.leave()
  await one.clock.advance(3 * POLL_MS)
  t.is(statuses(one) - before, 3)
})

test('a listener that is behind gets what is, and not all that was', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(slice({ count: 1, leaseMs: MINUTE }))
  const news = one.services.watch('mesh')[Symbol.asyncIterator]()
  await news.next()
  const next = news.next()
  for (let term = 2; term < 7; term++) {
    await one.services.renew('mesh', { durationMs: term * MINUTE })
  }
  await next
  const rest = news.next()
  await settle()
  await one.services.delete('mesh')
  const events = [(await rest).value, ...(await Array.fromAsync({ [Symbol.asyncIterator]: () => news }))]
  const renewed = events.filter(
    (event) => event !== undefined && 'type' in event && event.type === 'lease:renew'
  )
  t.true(renewed.length < 4, `${renewed.length} of five renewals`)
})

test('to watch what is not there is NOT_FOUND', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await t.throwsAsync(Array.fromAsync(one.services.watch('mesh')), { code: 'NOT_FOUND' })
})

test('the events between two views lead from one to the other', (t) => {
  const member = {
    node: 'p0',
    nodeName: 'n0',
    agent: 'a',
    agentName: 'a',
    lease: 'l0',
    ticket: 't0',
    vserver: 'v0',
    address: '198.18.0.1',
    ports: [],
    notBefore: 0,
    notAfter: 10,
    state: 'running' as const
  }
  const before: SliceView = {
    name: 'mesh',
    state: 'acquiring',
    count: 3,
    createdAt: 0,
    notAfter: 10,
    renew: false,
    members: [member, { ...member, nodeName: 'n1', vserver: 'v1' }]
  }
  const after: SliceView = {
    ...before,
    state: 'partial',
    notAfter: 20,
    members: [
      { ...member, lease: 'l9', notAfter: 20, state: 'exited', exitCode: 0 },
      { ...member, nodeName: 'n2', vserver: 'v2', notAfter: 30 }
    ]
  }
  const events = sliceChanges(before, after)
  t.deepEqual(
    events.map(({ type }) => type),
    ['slice:state', 'lease:renew', 'member:state', 'member:join', 'member:leave']
  )
  t.deepEqual(
    events.reduce((view, event) => withEvent(view, event), before),
    after
  )
  t.deepEqual(sliceChanges(after, after), [])
  // Once a day, since it lasts until the day is over.
  const narrowed = { ...member, egressNarrowed: true as const }
  const [running, slower] = [[member], [narrowed]].map((members) => ({ ...before, members }))
  t.deepEqual(sliceChanges(running!, slower!), [{ type: 'member:state', member: narrowed }])
  t.deepEqual(sliceChanges(slower!, slower!), [])
})

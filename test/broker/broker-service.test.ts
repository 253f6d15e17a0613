import test from 'ava'
import { LIMITS } from '../../src/base/limits.ts'
import type { Broker } from '../../src/broker/broker.ts'
import { brokerHandlers } from '../../src/broker/broker-service.ts'
import { brokerProtocol, type Rejection } from '../../src/protocol/broker-protocol.ts'
import { advertisementObject } from '../../src/ticket/advertisement.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { amounts, HOUR, makeKey } from '../ticket/fixtures.ts'
import { lab } from './broker-lab.ts'

/** Limits on silence do not keep a process alive; here they must. */
const alive = setInterval(() => {}, 1000)
test.after.always(() => clearInterval(alive))

const want = { count: 2, minimum: 2, resources: amounts(1), ports: [], rights: [], durationMs: HOUR }

type Served = Pick<Broker, 'find' | 'plan'>

/** A broker of strangers that does what the test says. */
function serve(broker: Partial<Served>) {
  const clock = new ManualClock()
  const asked: string[] = []
  const handlers = brokerHandlers({
    clock,
    brokerFor(principal) {
      asked.push(principal)
      return {
        find: async () => ({ found: [], mismatches: [] }),
        plan: async () => ({ satisfiable: true, members: [], rejections: [] }),
        ...broker
      }
    }
  })
  return { clock, asked, caller: (principal: string) => localCaller(brokerProtocol, handlers, principal) }
}

test('others get the adverts that match and plans, each as the principal that calls', async (t) => {
  const one = await lab(3, 1)
  const { caller, asked } = serve({
    find: async (query, options) => one.broker.find(query, options),
    plan: async (wanted, options) => one.broker.plan(wanted, options)
  })
  const { principal } = makeKey()
  const names: string[] = []
  await caller(principal)(
    'getAds',
    { query: 'node.name != "n0"' },
    {
      onItem: ({ advert }) => void names.push(advertisementObject.open(advert).body.name)
    }
  )
  t.deepEqual(names, ['n1', 'n2'])
  const members: unknown[] = []
  const result = await caller(principal)(
    'plan',
    { want },
    {
      onItem: ({ member }) => void (member && members.push(member))
    }
  )
  t.true(result.satisfiable)
  t.is(members.length, 2)
  t.false(one.calls.includes('getTickets'))
  t.deepEqual(asked, [principal, principal])
})

test('a query that cannot be read and a want out of bounds are refused', async (t) => {
  const one = await lab(1, 1)
  const { caller } = serve({ find: async (query) => one.broker.find(query) })
  const call = caller(makeKey().principal)
  await t.throwsAsync(call('getAds', { query: 'node.' }), { code: 'QUERY_INVALID' })
  const long = 'x'.repeat(LIMITS.queryCharsMax + 1)
  await t.throwsAsync(call('getAds', { query: long }), { code: 'PROTOCOL_ERROR' })
  const crowd = { ...want, count: LIMITS.sliceMembersMax + 1 }
  await t.throwsAsync(call('plan', { want: crowd }), { code: 'PROTOCOL_ERROR' })
})

test('whoever asks too often is told to wait, others are not, and after a while may ask again', async (t) => {
  const { caller, clock } = serve({})
  const eager = caller(makeKey().principal)
  for (let call = 0; call < LIMITS.brokerCallsPerCallerBurst; call++) await eager('getAds', {})
  await t.throwsAsync(eager('getAds', {}), { code: 'BUSY', message: /too often/ })
  await t.throwsAsync(eager('plan', { want }), { code: 'BUSY' })
  await t.notThrowsAsync(caller(makeKey().principal)('getAds', {}))
  await clock.advance(60_000 / LIMITS.brokerCallsPerCallerPerMinute)
  await t.notThrowsAsync(eager('getAds', {}))
})

test('work under way is bounded for each caller and for all together', async (t) => {
  const ended = Promise.withResolvers<void>()
  const { caller } = serve({
    async find() {
      await ended.promise
      return { found: [], mismatches: [] }
    }
  })
  const first = caller(makeKey().principal)
  const own = Array.from({ length: LIMITS.brokerWorkPerCallerMax }, async () => first('getAds', {}))
  await t.throwsAsync(first('getAds', {}), { code: 'BUSY', message: /this peer has 2/ })
  const rest = LIMITS.brokerWorkMax - LIMITS.brokerWorkPerCallerMax
  const others = Array.from({ length: rest }, async () => caller(makeKey().principal)('getAds', {}))
  await t.throwsAsync(caller(makeKey().principal)('getAds', {}), { code: 'BUSY', message: /16 questions/ })
  ended.resolve()
  await Promise.all([...own, ...others])
  await t.notThrowsAsync(first('getAds', {}))
})

test('of very many nodes passed over those that fail least are told', async (t) => {
  const { principal } = makeKey()
  const far = { clause: 'far' }
  const rejections: Rejection[] = Array.from({ length: LIMITS.brokerRejectionsMax + 5 }, (_one, index) => ({
    node: principal,
    name: `n${index}`,
    failed: index < 5 ? [far, far] : [far]
  }))
  const { caller } = serve({ plan: async () => ({ satisfiable: false, members: [], rejections }) })
  const told: Rejection[] = []
  await caller(principal)(
    'plan',
    { want },
    {
      onItem: ({ rejection }) => void (rejection && told.push(rejection))
    }
  )
  t.is(told.length, LIMITS.brokerRejectionsMax)
  t.true(told.every(({ failed }) => failed.length === 1))
})

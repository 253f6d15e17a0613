import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import type { LeaseRecord } from '../../src/node/lease-table.ts'
import { TrafficEnds } from '../../src/node/traffic-ends.ts'
import { ManualClock, settle } from '../base/manual-clock.ts'
import { HOUR, lease, makeKey, NOW } from '../ticket/fixtures.ts'

const node = makeKey()
const holder = makeKey()

type Tenant = Pick<LeaseRecord, 'lease' | 'state'>

function lab(): {
  leases: Tenant[]
  told: Map<string, number>[]
  fails: boolean
  hasSix: boolean
  changed: () => void
  ends: TrafficEnds
  clock: ManualClock
} {
  const clock = new ManualClock()
  const state = {
    leases: [] as Tenant[],
    told: [] as Map<string, number>[],
    fails: false,
    hasSix: false,
    changed: (): void => {},
    clock
  }
  const ends = new TrafficEnds({
    manager: {
      table: { holding: () => state.leases },
      onChange: (listener) => {
        state.changed = listener
        return () => {}
      }
    },
    set: async (all) => {
      await Promise.resolve()
      if (state.fails) throw new Error('nft does not answer')
      state.told.push(new Map(all))
    },
    addressOf: (vserver) => ({ one: '100.64.1.2', two: '100.64.2.2' })[vserver],
    hasSix: () => state.hasSix,
    clock,
    logger: silentLogger
  })
  return Object.assign(state, { ends })
}

const of = (vserver: string, seq: number, notAfter: number): Tenant => ({
  lease: lease(node, holder, seq, { vserver, notAfter }),
  state: 'active'
})

test('the network is told the end of each lease, and anew when one is renewed or gone', async (t) => {
  const state = lab()
  state.leases = [of('one', 1, NOW + HOUR), of('without-a-link', 2, NOW + HOUR)]
  await state.ends.start()
  t.deepEqual(state.told, [new Map([['100.64.1.2', NOW + HOUR]])])
  state.leases = [of('one', 1, NOW + HOUR), of('one', 3, NOW + 2 * HOUR)]
  state.changed()
  await settle()
  t.deepEqual(state.told.at(-1), new Map([['100.64.1.2', NOW + 2 * HOUR]]), 'the later end counts')
  state.leases = []
  await state.clock.advance(1000)
  t.deepEqual(state.told.at(-1), new Map())
  await state.clock.advance(10_000)
  t.is(state.told.length, 3, 'and only when something changed')
  await state.ends.stop()
})

test('what the network could not be told is told again', async (t) => {
  const state = lab()
  await state.ends.start()
  state.leases = [of('two', 1, NOW + HOUR)]
  state.fails = true
  await state.clock.advance(2000)
  t.is(state.told.length, 1)
  state.fails = false
  await state.clock.advance(2000)
  t.deepEqual(state.told.at(-1), new Map([['100.64.2.2', NOW + HOUR]]))
  await state.ends.stop()
})

test('the ends of all are told again when vservers have IPv6, though no lease changed', async (t) => {
  const state = lab()
  state.leases = [of('one', 1, NOW + HOUR)]
  await state.ends.start()
  await state.clock.advance(5000)
  t.is(state.told.length, 1, 'nothing changed yet')
  state.hasSix = true
  await state.clock.advance(1000)
  t.is(state.told.length, 2)
  t.deepEqual(state.told.at(-1), new Map([['100.64.1.2', NOW + HOUR]]))
  await state.clock.advance(5000)
  t.is(state.told.length, 2, 'and once')
  await state.ends.stop()
})

import test from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import { silentLogger } from '../../src/base/log.ts'
import { Spares } from '../../src/enforce/spares.ts'
import { Turns } from '../../src/enforce/turns.ts'
import type { Spare } from '../../src/enforce/vserver-maker.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { vserverSpec } from './enforcer-contract.ts'

/** A second: longer than anything waits for quiet. */
const LONG = 1000

function kept(count: number) {
  const clock = new ManualClock()
  const there = new Set<string>()
  const state = { made: 0, fails: false, isUsable: true, takesMs: 0 }
  const maker = {
    makeSpare: async ({
      image,
      rights
    }: Pick<Spare['record']['spec'], 'image' | 'rights'>): Promise<Spare> => {
      await clock.sleep(state.takesMs)
      if (state.fails) throw new SlicenetError('VSERVER_FAILED', 'it was to fail')
      const container = `spare-${++state.made}`
      there.add(container)
      const spec = vserverSpec(image, { id: container, rights })
      return { record: { spec, container, uidBase: 0, phase: 'making' }, imageInode: 1 }
    },
    isUsable: async () => state.isUsable,
    discardSpare: async ({ record }: Spare) => void there.delete(record.container)
  }
  const turns = new Turns({ atOnceMax: 1, callersMax: 8 })
  const spares = new Spares({ clock, logger: silentLogger, maker, turns }, { kept: count })
  return { clock, spares, state, there: (): string[] => [...there] }
}

test('as many as are to be kept are made like the last, and handed out once each', async (t) => {
  const { clock, spares, there } = kept(2)
  t.is(await spares.take(vserverSpec('image')), undefined)
  spares.expect(vserverSpec('image', { id: 'a', slice: 'one' }))
  await clock.advance(LONG)
  t.deepEqual(there(), ['spare-1', 'spare-2'])
  t.is((await spares.take(vserverSpec('image', { id: 'b', slice: 'two' })))?.record.container, 'spare-1')
  t.is((await spares.take(vserverSpec('image')))?.record.container, 'spare-2')
  t.is(await spares.take(vserverSpec('image')), undefined)
})

test('one of another image or with other rights is nobody’s who asks for something else', async (t) => {
  const { clock, spares } = kept(1)
  spares.expect(vserverSpec('image', { rights: ['raw-socket'] }))
  await clock.advance(LONG)
  t.is(await spares.take(vserverSpec('other', { rights: ['raw-socket'] })), undefined)
  t.is(await spares.take(vserverSpec('image')), undefined)
  t.not(await spares.take(vserverSpec('image', { rights: ['raw-socket'] })), undefined)
})

test('those of a kind that nobody leased last make room for the kind that somebody did', async (t) => {
  const { clock, spares, there } = kept(1)
  spares.expect(vserverSpec('image'))
  await clock.advance(LONG)
  spares.expect(vserverSpec('other'))
  await clock.advance(LONG)
  t.deepEqual(there(), ['spare-2'])
  t.not(await spares.take(vserverSpec('other')), undefined)
})

test('nothing is made while somebody’s work is done', async (t) => {
  const { clock, spares, there } = kept(1)
  spares.expect(vserverSpec('image'))
  for (let step = 0; step < 20; step++) {
    await clock.advance(50)
    spares.postpone()
    t.deepEqual(there(), [])
  }
  await clock.advance(LONG)
  t.deepEqual(there(), ['spare-1'])
})

test('one that does not run any more is removed and not handed out', async (t) => {
  const { clock, spares, state, there } = kept(1)
  spares.expect(vserverSpec('image'))
  await clock.advance(LONG)
  state.isUsable = false
  t.is(await spares.take(vserverSpec('image')), undefined)
  t.deepEqual(there(), [])
})

test('what cannot be made ahead is tried again with the next that is leased', async (t) => {
  const { clock, spares, state, there } = kept(1)
  state.fails = true
  spares.expect(vserverSpec('image'))
  await clock.advance(LONG)
  t.deepEqual(there(), [])
  state.fails = false
  await clock.advance(LONG)
  t.deepEqual(there(), [])
  spares.expect(vserverSpec('image'))
  await clock.advance(LONG)
  t.deepEqual(there(), ['spare-1'])
})

test('the first who wants one that is being made waits for it, and no other does', async (t) => {
  const { clock, spares, state } = kept(1)
  state.takesMs = 10 * LONG
  spares.expect(vserverSpec('image'))
  await clock.advance(LONG)
  t.is(await spares.take(vserverSpec('other')), undefined)
  const first = spares.take(vserverSpec('image'))
  t.is(await spares.take(vserverSpec('image')), undefined)
  await clock.advance(10 * LONG)
  t.is((await first)?.record.container, 'spare-1')
})

test('administrative slices get none, and none are made where none are to be kept', async (t) => {
  for (const [count, rights] of [
    [1, ['administrative']],
    [0, []]
  ] as const) {
    const { clock, spares, there } = kept(count)
    spares.expect(vserverSpec('image', { rights }))
    await clock.advance(LONG)
    t.deepEqual(there(), [])
  }
})

test('at the end none are left, and none come after', async (t) => {
  const { clock, spares, there } = kept(2)
  spares.expect(vserverSpec('image'))
  await clock.advance(LONG)
  t.is(there().length, 2)
  await spares.stop()
  t.deepEqual(there(), [])
  spares.expect(vserverSpec('image'))
  await clock.advance(LONG)
  t.deepEqual(there(), [])
})

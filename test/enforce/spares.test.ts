import test from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import { silentLogger } from '../../src/base/log.ts'
import { Spares } from '../../src/enforce/spares.ts'
import { Turns } from '../../src/enforce/turns.ts'
import type { Spare } from '../../src/enforce/vserver-maker.ts'
import type { OciProcess, WaitingStart } from '../../src/enforce/waiting-start.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { vserverSpec } from './enforcer-contract.ts'

/** A second: longer than anything waits for quiet. */
const LONG = 1000

function kept(count: number) {
  const clock = new ManualClock()
  const there = new Set<string>()
  const state = { made: 0, fails: false, isUsable: true, takesMs: 0, preparesFail: false }
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
  const prepared: string[] = []
  const programs = {
    prepare: async ({ container }: Spare['record'], process: OciProcess, before?: WaitingStart) => {
      prepared.push(`${container} ${String(process['user'])}${before === undefined ? '' : ' again'}`)
      if (state.preparesFail) throw new SlicenetError('VSERVER_FAILED', 'it was to fail')
      return { process } as WaitingStart
    }
  }
  const spares = new Spares({ clock, logger: silentLogger, maker, programs, turns }, { kept: count })
  return { clock, spares, state, prepared, there: (): string[] => [...there] }
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

test('one waits with the start of a program such as was launched last, and is told apart by nothing else', async (t) => {
  const { clock, spares, prepared } = kept(1)
  const like = (user: string, args: string): OciProcess => ({ user, args: [args], env: [], cwd: '/' })
  spares.expect(vserverSpec('image'))
  await clock.advance(LONG)
  t.deepEqual(prepared, [])
  // It was there before anything was launched.
  spares.expectProgram(vserverSpec('image'), like('root', 'one'))
  await clock.advance(LONG)
  spares.expectProgram(vserverSpec('image'), like('root', 'two'))
  spares.expectProgram(vserverSpec('other'), like('nobody', 'one'))
  await clock.advance(LONG)
  t.deepEqual(prepared, ['spare-1 root'])
  spares.expectProgram(vserverSpec('image'), like('nobody', 'one'))
  await clock.advance(LONG)
  // Not for everybody who takes turns.
  t.deepEqual(prepared, ['spare-1 root'])
  await clock.advance(6 * LONG)
  spares.expectProgram(vserverSpec('image'), like('nobody', 'one'))
  await clock.advance(LONG)
  t.deepEqual(prepared, ['spare-1 root', 'spare-1 nobody again'])
  t.is((await spares.take(vserverSpec('image')))?.start?.process['user'], 'nobody')
  spares.expect(vserverSpec('image'))
  await clock.advance(LONG)
  t.is(prepared.at(-1), 'spare-2 nobody')
})

test('one whose program’s start cannot be made ahead is handed out without', async (t) => {
  const { clock, spares, state, prepared } = kept(1)
  state.preparesFail = true
  spares.expect(vserverSpec('image'))
  spares.expectProgram(vserverSpec('image'), { user: 'root' })
  await clock.advance(LONG)
  t.deepEqual(prepared, ['spare-1 root'])
  const spare = await spares.take(vserverSpec('image'))
  t.is(spare?.record.container, 'spare-1')
  t.is(spare?.start, undefined)
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

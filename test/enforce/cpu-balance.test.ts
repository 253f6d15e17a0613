/** Whose cap on the processor is narrowed so that others get what they are guaranteed, and when it is widened again. */
import test from 'ava'
import { CpuBalance, type CpuShare } from '../../src/enforce/cpu-balance.ts'

const LOOK_MS = 250
const CORES = 2000

interface Demand {
  readonly id: string
  readonly guarantee: number
  readonly cap?: number
  readonly wanted: number
  /** What the kernel takes its weight for, as a multiple of its guarantee; default as it should be. */
  readonly misjudged?: number
}

/** A machine of two cores whose kernel shares by weights, looked at again and again; gives who used how much at each look. */
function* looks(balance: CpuBalance, demands: (look: number) => readonly Demand[]) {
  for (let look = 0; ; look++) {
    const wanting = demands(look)
    const used = shareOut(wanting.map((demand) => ({ ...demand, cap: capOf(demand, balance) })))
    const shares = wanting.map(({ id, guarantee, cap = CORES, wanted }): CpuShare => ({
      id,
      guarantee,
      cap,
      wanted,
      used: used.get(id) ?? 0
    }))
    const idle = CORES - [...used.values()].reduce((sum, each) => sum + each, 0)
    balance.look({ now: look * LOOK_MS, idle, shares })
    yield used
  }
}

function capOf({ id, cap = CORES }: Demand, balance: CpuBalance): number {
  return balance.narrowed.get(id) ?? cap
}

/** Water filling: what one does not want goes to the others by their weights. */
function shareOut(demands: readonly (Demand & { readonly cap: number })[]): Map<string, number> {
  const used = new Map<string, number>()
  let left = CORES
  let open = [...demands]
  for (;;) {
    const weights = open.reduce((sum, { guarantee, misjudged = 1 }) => sum + guarantee * misjudged, 0)
    const part = ({ guarantee, misjudged = 1 }: Demand): number => (left * guarantee * misjudged) / weights
    const full = open.filter((demand) => Math.min(demand.wanted, demand.cap) <= part(demand))
    if (full.length === 0) {
      for (const demand of open) used.set(demand.id, part(demand))
      return used
    }
    for (const { id, wanted, cap } of full) used.set(id, Math.min(wanted, cap))
    left = CORES - [...used.values()].reduce((sum, each) => sum + each, 0)
    open = open.filter((demand) => !full.includes(demand))
  }
}

function average(rows: readonly ReadonlyMap<string, number>[], id: string): number {
  return rows.reduce((sum, row) => sum + (row.get(id) ?? 0), 0) / rows.length
}

const NEIGHBOUR: Demand = { id: 'neighbour', guarantee: 1000, wanted: 2000 }
const BOMB: Demand = { id: 'bomb', guarantee: 1000, wanted: 60_000, misjudged: 50 }

test('a vserver gets its guarantee beside one that the kernel takes for much heavier', (t) => {
  const rows = [...looks(new CpuBalance(), () => [NEIGHBOUR, BOMB]).take(400)]
  t.true(average(rows.slice(0, 1), 'neighbour') < 50, 'the control: before the first look')
  t.true(average(rows.slice(2), 'neighbour') > 950, `${average(rows.slice(2), 'neighbour')}`)
  t.true(average(rows.slice(2), 'bomb') > 950, 'the other keeps its own guarantee')
})

test('caps stay as they are where the kernel shares as it should', (t) => {
  const balance = new CpuBalance()
  for (const _ of looks(balance, () => [NEIGHBOUR, { ...BOMB, misjudged: 1 }]).take(40)) {
    t.is(balance.narrowed.size, 0)
  }
})

test('what nobody waits for may be taken beyond guarantees', (t) => {
  const balance = new CpuBalance()
  const rows = [...looks(balance, () => [{ ...NEIGHBOUR, wanted: 0 }, BOMB]).take(40)]
  t.is(balance.narrowed.size, 0)
  t.is(average(rows, 'bomb'), CORES)
})

test('a cap is wide again soon after the others stopped wanting', (t) => {
  const balance = new CpuBalance()
  const rows = [...looks(balance, (look) => [{ ...NEIGHBOUR, wanted: look < 20 ? 2000 : 0 }, BOMB]).take(30)]
  t.true(average(rows.slice(10, 20), 'bomb') < 1100)
  t.is(rows.at(-1)?.get('bomb'), CORES)
  t.is(balance.narrowed.size, 0)
})

test('a cap is wide again when the kernel shares as it should by itself', (t) => {
  const balance = new CpuBalance()
  const demands = (look: number): Demand[] => [NEIGHBOUR, { ...BOMB, misjudged: look < 20 ? 50 : 1 }]
  for (const _ of looks(balance, demands).take(100));
  t.is(balance.narrowed.size, 0)
})

test('nobody is narrowed for what the rest of the machine takes', (t) => {
  const balance = new CpuBalance()
  const share = { cap: CORES, guarantee: 1000, wanted: 2000, used: 600 }
  balance.look({
    now: 0,
    idle: 0,
    shares: [
      { id: 'a', ...share },
      { id: 'b', ...share }
    ]
  })
  t.is(balance.narrowed.size, 0)
})

test('takers give up in proportion to what they took, and nobody falls below its guarantee', (t) => {
  const balance = new CpuBalance()
  const shares = [
    { id: 'short', guarantee: 800, cap: CORES, wanted: 1000, used: 600 },
    { id: 'much', guarantee: 300, cap: CORES, wanted: 1000, used: 900 },
    { id: 'little', guarantee: 300, cap: CORES, wanted: 1000, used: 500 }
  ]
  balance.look({ now: 0, idle: 0, shares })
  t.deepEqual(Object.fromEntries(balance.narrowed), { much: 713, little: 438 })
  for (let look = 1; look < 9; look++) balance.look({ now: look * LOOK_MS, idle: 0, shares })
  for (const cap of balance.narrowed.values()) t.true(cap >= 300)
})

test('what is destroyed is forgotten', (t) => {
  const balance = new CpuBalance()
  for (const _ of looks(balance, () => [NEIGHBOUR, BOMB]).take(4));
  t.true(balance.narrowed.has('bomb'))
  balance.look({ now: 2000, idle: 0, shares: [] })
  t.is(balance.narrowed.size, 0)
})

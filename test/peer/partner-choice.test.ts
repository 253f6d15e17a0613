import test from 'ava'
import { choosePartners, type Partner } from '../../src/peer/partner-choice.ts'
import { numbersOf } from '../base/seeded-numbers.ts'

function seeded(seed: number) {
  const number = numbersOf(seed)
  return { bytes: (length: number) => Uint8Array.from({ length }, () => number(256)) }
}

const dialed: Partner[] = Array.from({ length: 4 }, (_one, index) => ({
  principal: `dialed-${index}`,
  isDialed: true
}))
const strangers: Partner[] = Array.from({ length: 500 }, (_one, index) => ({
  principal: `stranger-${index}`,
  isDialed: false
}))

test('however many strangers connect, most of whom a peer measures it sought itself', (t) => {
  const random = seeded(1)
  const chosen = Array.from({ length: 1000 }, () =>
    choosePartners([...strangers, ...dialed], 1, random)
  ).flat()
  const sought = chosen.filter((principal) => principal.startsWith('dialed'))
  t.is(chosen.length, 1000)
  t.true(sought.length > 650, `${sought.length} of 1000`)
  t.is(new Set(sought).size, dialed.length, 'each of them now and then')
  t.true(chosen.length - sought.length > 100, 'others as well')
})

test('none is chosen twice, and all when there are no more than wanted', (t) => {
  const random = seeded(2)
  const few = [...dialed, ...strangers.slice(0, 3)]
  t.deepEqual([...choosePartners(few, 20, random)].sort(), few.map(({ principal }) => principal).sort())
  t.is(new Set(choosePartners([...dialed, ...strangers], 50, random)).size, 50)
  t.is(choosePartners(strangers, 5, random).length, 5)
  t.deepEqual(choosePartners([], 3, random), [])
})

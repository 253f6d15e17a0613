import test from 'ava'
import { mostNamed } from '../../src/peer/rendezvous.ts'

const provider = (principal: string) => ({ principal, multiaddrs: [] })
const answer = (by: string, ...names: string[]) => ({ by, providers: names.map(provider) })
const names = (...answers: ReturnType<typeof answer>[]): string[] =>
  mostNamed(answers).map(({ principal }) => principal)

test('whom most peers name comes first', (t) => {
  t.deepEqual(names(answer('a', 'x', 'y'), answer('b', 'y'), answer('c', 'z', 'y')), ['y', 'x', 'z'])
})

test('a liar that names very many crowds out nobody whom two others name', (t) => {
  const invented = Array.from({ length: 1000 }, (_one, index) => `invented ${index}`)
  const found = names(answer('liar', ...invented), answer('a', 'honest'), answer('b', 'honest'))
  t.is(found[0], 'honest')
  t.true(found.length < 50)
})

test('of those named once, the first of each answer comes before the second of any', (t) => {
  t.deepEqual(names(answer('a', 'a1', 'a2', 'a3'), answer('b', 'b1')), ['a1', 'b1', 'a2', 'a3'])
})

test('a peer that names one many times says it once', (t) => {
  t.deepEqual(names(answer('liar', 'x', 'x', 'x'), answer('a', 'y'), answer('b', 'y')), ['y', 'x'])
})

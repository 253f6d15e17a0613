import test from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import { findByPrefix } from '../../src/daemon/prefix.ts'

const init = { what: 'slice', namesOf: (name: string) => [name, `id-${name}`] }

test('a beginning that only one thing has names it', (t) => {
  t.is(findByPrefix(['mesh', 'probe'], 'me', init), 'mesh')
  t.is(findByPrefix(['mesh', 'probe'], 'id-p', init), 'probe')
})

test('a whole name wins over longer ones that begin so', (t) => {
  t.is(findByPrefix(['mesh2', 'mesh'], 'mesh', init), 'mesh')
})

test('a beginning that several have is ambiguous, and they are told', (t) => {
  const error = t.throws(() => findByPrefix(['mesh1', 'mesh2', 'x'], 'mesh', init), {
    instanceOf: SlicenetError
  })
  t.is(error.code, 'AMBIGUOUS_ID')
  t.deepEqual(error.details?.['candidates'], ['mesh1', 'mesh2'])
})

test('nothing begins with what is unknown, and nothing is named by nothing', (t) => {
  t.throws(() => findByPrefix(['mesh'], 'x', init), { code: 'NOT_FOUND' })
  t.throws(() => findByPrefix(['mesh'], '', init), { code: 'NOT_FOUND' })
})

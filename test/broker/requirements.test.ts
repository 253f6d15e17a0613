import test from 'ava'
import { imageId, unmetImage } from '../../src/broker/requirements.ts'
import { IMAGE } from '../ticket/fixtures.ts'
import { advertBody } from './adverts.ts'

const having = advertBody()
const lacking = advertBody({ images: { debian: `sha256:${'0'.repeat(64)}` } })
const fetching = advertBody({ images: {}, attributes: { fetchesImages: 'yes' } })

test('a node that fetches images counts as one that has whatever image some node has', (t) => {
  for (const wanted of ['debian', IMAGE]) {
    const id = imageId([having, having, lacking, fetching], wanted)
    t.is(id, IMAGE)
    t.deepEqual(unmetImage(wanted, id, having), [])
    t.deepEqual(unmetImage(wanted, id, fetching), [])
    t.is(unmetImage(wanted, id, lacking).length, 1)
    // The control: it is the attribute that makes it one.
    t.is(unmetImage(wanted, id, { ...fetching, attributes: { fetchesImages: 'no' } }).length, 1)
  }
  const nowhere = imageId([having, fetching], 'plan9')
  t.is(unmetImage('plan9', nowhere, fetching).length, 1, 'what no node has cannot be fetched')
})

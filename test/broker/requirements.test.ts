import test from 'ava'
import { imageId, unmet, unmetImage } from '../../src/broker/requirements.ts'
import type { Want } from '../../src/protocol/broker-protocol.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import { amounts, HOUR, IMAGE } from '../ticket/fixtures.ts'
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

test('a node that leases no larger share is none for who wants one', (t) => {
  const want = { count: 1, minimum: 1, resources: amounts(1), ports: [], rights: [], durationMs: HOUR }
  const holder = { principal: 'me', organisations: [] }
  const failed = (advert: NodeAdvertisement, egressShare: number): unknown =>
    unmet({ want: { ...want, shaping: { egressShare } }, holder, isProven: () => false }, advert)
  t.deepEqual(failed(advertBody(), 1), [])
  t.deepEqual(failed(advertBody(), 2), [{ clause: 'egressShare >= 2', value: '1' }])
  t.deepEqual(failed(advertBody({ egressShare: 3 }), 3), [])
  t.deepEqual(failed(advertBody({ egressShare: 3 }), 4), [{ clause: 'egressShare >= 4', value: '3' }])
})

test('a node is none for an administrative slice unless it leases the rights, and to this holder', (t) => {
  const rights = ['administrative', 'cap-net-raw'] as const
  const want = {
    count: 1,
    minimum: 1,
    resources: amounts(1),
    ports: [],
    rights: [...rights],
    durationMs: HOUR
  }
  const clauses = (advert: NodeAdvertisement, changes: Partial<Want> = {}): string[] => {
    const holder = { principal: 'me', organisations: [] }
    return unmet({ want: { ...want, ...changes }, holder, isProven: () => false }, advert).map(
      ({ clause }) => clause
    )
  }
  const offering = advertBody({ rights: [...rights], administrators: ['other', 'me'] })
  t.deepEqual(clauses(offering), [])
  t.deepEqual(clauses({ ...offering, administrators: ['other'] }), ['administrative slices for me'])
  t.deepEqual(clauses({ ...offering, rights: ['administrative'] }), ['right cap-net-raw'])
  t.deepEqual(clauses(advertBody()), [
    'administrative slices for me',
    'right administrative',
    'right cap-net-raw'
  ])
  // A node's administrators make no difference to an ordinary slice.
  t.deepEqual(clauses({ ...offering, administrators: ['other'] }, { rights: [] }), [])
  t.deepEqual(clauses(offering, { ports: [{ protocol: 'tcp' }] }), ['rights that go together'])
})

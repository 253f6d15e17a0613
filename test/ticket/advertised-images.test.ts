import test from 'ava'
import { advertisementObject, canAdvertiseImage } from '../../src/ticket/advertisement.ts'
import { advertBody } from '../broker/adverts.ts'
import { IMAGE, makeKey } from './fixtures.ts'

test('a name of an image can be advertised exactly where an advert with it can be signed', (t) => {
  const key = makeKey()
  const names = ['debian', '12.1-slim', 'my_image', 'constructor', 'prototype', '-x', 'a'.repeat(65)]
  const able = names.filter((name) => {
    const advert = { ...advertBody({ images: { [name]: IMAGE } }), issuer: key.principal }
    try {
      return advertisementObject.sign(advert, key) !== undefined
    } catch {
      return false
    }
  })
  t.deepEqual(able, names.filter(canAdvertiseImage))
  t.deepEqual(able, ['debian', '12.1-slim'])
})

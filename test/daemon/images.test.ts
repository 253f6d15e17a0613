import test from 'ava'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseConfig, servesImages } from '../../src/daemon/config.ts'
import { readEnvironment } from '../../src/daemon/environment.ts'
import { createImages } from '../../src/daemon/images.ts'

test('images are for root alone', async (t) => {
  const environment = readEnvironment({ variables: { SLICENET_HOME: '/nowhere/slicenet' } })
  await t.throwsAsync(createImages(environment, 1000), { code: 'NOT_ROOT' })
})

test('a new store of images is empty, builds nothing that it has no recipe for and imports nothing that is not there', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'slicenet-images-'))
  const images = await createImages(readEnvironment({ variables: { SLICENET_HOME: home } }), 0)
  const options = { onProgress: () => {}, signal: new AbortController().signal }
  t.deepEqual(await images.listImages(), [])
  await t.throwsAsync(images.buildImage('windows', options), { code: 'USAGE', message: /windows/ })
  await t.throwsAsync(images.importImage(join(home, 'none'), 'x'), { code: 'NOT_FOUND' })
  await t.throwsAsync(images.removeImage('none'), { code: 'IMAGE_MISSING' })
  await rm(home, { recursive: true })
})

test('a node serves its images unless it leases to some only, and fetches none for leases unless told to', (t) => {
  const node = (lines: string) => {
    const config = parseConfig(`name: one\nnode:\n  agents: []\n${lines}`, 'x').node
    if (config === undefined) throw new TypeError('no node')
    const { fetch, largest, kept } = config.images
    return { serves: servesImages(config), fetches: fetch, largest, kept }
  }
  const largest = 2 * 1024 ** 3
  const kept = 16 * 1024 ** 3
  t.deepEqual(node(''), { serves: true, fetches: false, largest, kept })
  t.deepEqual(node('  accepts: {}'), { serves: false, fetches: false, largest, kept })
  t.true(node('  accepts: {}\n  images: { serve: true }').serves)
  t.deepEqual(node('  images: { serve: false, fetch: true, largest: 100MiB, kept: 1GiB }'), {
    serves: false,
    fetches: true,
    largest: 100 * 1024 ** 2,
    kept: 1024 ** 3
  })
  t.throws(() => node('  images: { largest: 100GiB }'), { code: 'CONFIG_INVALID' })
})

import test from 'ava'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
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
  await rm(home, { recursive: true })
})

import test from 'ava'
import { run } from '../../src/base/host-program.ts'
import { KERNEL_PROBES } from '../../src/daemon/kernel-probes.ts'

test('every kernel probe succeeds here, and the one of nft leaves no table behind', async (t) => {
  for (const { name, probe } of KERNEL_PROBES) t.is(typeof (await probe({})), 'string', name)
  t.false((await run('nft', ['list', 'tables'])).includes('slicenet-doctor'))
})

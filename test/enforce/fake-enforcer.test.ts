import test from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { FakeEnforcer } from '../../src/enforce/fake-enforcer.ts'
import { contractPrograms } from './contract-programs.ts'
import { enforcerContract } from './enforcer-contract.ts'

const image = `sha256:${'1'.repeat(64)}`
const enforcer = new FakeEnforcer(
  { clock: systemClock },
  { hasImage: (id) => id === image, findProgram: (argv0) => contractPrograms[argv0] }
)

enforcerContract(test, {
  enforcer: () => enforcer,
  image: () => image,
  restart: async () => {
    await enforcer.stop()
    await enforcer.start()
  }
})

test.serial('keys are replaced', async (t) => {
  const spec = {
    id: 'keys',
    slice: 'keys',
    image,
    resources: (await enforcer.capacity()).resources,
    ports: [],
    rights: [],
    keys: ['one']
  }
  await enforcer.create(spec)
  t.deepEqual(enforcer.keysOf('keys'), ['one'])
  await enforcer.setKeys('keys', ['two', 'three'])
  t.deepEqual(enforcer.keysOf('keys'), ['two', 'three'])
  await enforcer.destroy('keys')
})

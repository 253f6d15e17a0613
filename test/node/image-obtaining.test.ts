import test from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import { obtainImage } from '../../src/node/image-obtaining.ts'
import { ImageOnItsWay } from '../../src/node/redemption.ts'
import { delegate, issue, makeKey } from '../ticket/fixtures.ts'
import { codeOf, deleteLease, leaseOf, nodeLab, redeem, type NodeLab, type Presented } from './node-lab.ts'

const agent = makeKey()
const holder = makeKey()
const IMAGE = `sha256:${'9'.repeat(64)}`

function present(lab: NodeLab): Presented {
  const delegation = delegate(lab.key, agent)
  return { delegation, tickets: [issue(delegation, agent, holder)], holder, changes: { image: IMAGE } }
}

test('the image of a demand is there before the virtual machine is made, and only a good demand asks for it', async (t) => {
  const asked: string[] = []
  const lab: NodeLab = await nodeLab({
    async obtainImage(image) {
      t.is(lab.enforcer.created.length, 0)
      asked.push(image)
    }
  })
  const presented = present(lab)
  const stranger = makeKey()
  t.not(codeOf(await redeem(lab, { ...presented, holder: stranger })), 'leased')
  t.deepEqual(asked, [])
  t.is(codeOf(await redeem(lab, presented)), 'leased')
  t.deepEqual(asked, [IMAGE])
  t.is(lab.enforcer.created.length, 1)
})

test('while an image is on its way the answer is BUSY and nothing is held; then the same ticket is good', async (t) => {
  let isHere = false
  const lab = await nodeLab({
    async obtainImage(image) {
      if (!isHere) throw new ImageOnItsWay(image)
    }
  })
  const presented = present(lab)
  await t.throwsAsync(redeem(lab, presented), { code: 'BUSY', message: /on its way/ })
  t.is(lab.leased().memoryBytes, 0)
  t.deepEqual(await lab.enforcer.running(), [])
  isHere = true
  const lease = leaseOf(await redeem(lab, presented))
  t.deepEqual(await lab.enforcer.running(), [lease.body.vserver])
  await deleteLease(lab, lease, holder)
})

test('an image that cannot be had is a signed refusal, and the ticket stays good', async (t) => {
  let fails = true
  const clock = { timeout: () => new AbortController().signal }
  const fetch = async (): Promise<void> => {
    if (fails) throw new SlicenetError('PEER_UNREACHABLE', 'nobody answers')
  }
  const lab = await nodeLab({ obtainImage: async (image) => obtainImage({ clock, fetch }, image) })
  const presented = present(lab)
  const outcome = await redeem(lab, presented)
  t.is(codeOf(outcome), 'IMAGE_MISSING')
  t.is(lab.leased().memoryBytes, 0)
  fails = false
  t.is(codeOf(await redeem(lab, presented)), 'leased')
})

test('a holder is not kept waiting for long', async (t) => {
  const fetched = Promise.withResolvers<void>()
  const late = { clock: { timeout: () => AbortSignal.timeout(20) }, fetch: async () => fetched.promise }
  await t.throwsAsync(obtainImage(late, IMAGE), { code: 'BUSY', instanceOf: ImageOnItsWay })
  fetched.resolve()
  await t.notThrowsAsync(obtainImage(late, IMAGE))
  const invalid = async (): Promise<never> => {
    throw new SlicenetError('IMAGE_INVALID', 'not an image')
  }
  const never = { timeout: () => new AbortController().signal }
  await t.throwsAsync(obtainImage({ clock: never, fetch: invalid }, IMAGE), { code: 'IMAGE_INVALID' })
})

/**
 * The escape suite: whatever leads out of a vserver elsewhere is tried in real ones, where it must fail, and in a control
 * that lacks what should prevent it, where it must succeed, so that no attempt passes because it could not work.
 */
import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { ATTEMPTS } from './attempts.ts'
import { carelessCaretaker, enforcerAsCaretaker, type Caretaker } from './caretakers.ts'
import { OUTSIDE_ATTEMPTS, type Outside } from './from-outside.ts'
import { EscapeLab } from './lab.ts'

const NAMES = [...ATTEMPTS, ...OUTSIDE_ATTEMPTS].map(({ name }) => name)
const ATTEMPTS_MIN = 40

let lab: EscapeLab
let careless: Caretaker
/** Attempts that failed in every vserver and succeeded in their control. */
const shown = new Set<string>()

test.before(async () => {
  lab = await EscapeLab.start()
  careless = await carelessCaretaker(lab)
})

test.after.always(async () => {
  await lab?.stop()
})

for (const attempt of ATTEMPTS) {
  test.serial(`a vserver cannot ${attempt.name}`, async (t) => {
    const vservers = lab.vserversFor(attempt)
    const told = await Promise.all(vservers.map((id) => lab.tryInVserver(id, attempt)))
    for (const [index, { outcome, reason }] of told.entries()) {
      t.not(outcome, 'reached', `${vservers[index]}: ${reason}`)
    }
    if (attempt.isLent === true) t.is((await lab.tryInVserver('administrative', attempt)).outcome, 'reached')
    const { outcome, reason } = await lab.tryInControl(attempt)
    const control = `the control without ${attempt.without.join(', ')}: ${reason}`
    if (outcome === 'absent' && attempt.mayLack !== undefined) {
      const where = attempt.inVirtualMachine === true ? 'shown in a virtual machine' : 'not shown'
      t.log(`${where}, for want of ${attempt.mayLack}: ${reason}`)
      return
    }
    t.is(outcome, 'reached', control)
    shown.add(attempt.name)
  })
}

for (const { name, reaches } of OUTSIDE_ATTEMPTS) {
  test.serial(`a slice cannot ${name}`, async (t) => {
    const outside = async (): Promise<Outside> => ({
      scratch: await mkdtemp(join(lab.outside, 'attempt-')),
      secret: join(lab.outside, 'secret'),
      token: lab.token,
      imageRoot: lab.imageRoot
    })
    t.false(await reaches(enforcerAsCaretaker(lab), await outside()))
    t.true(await reaches(careless, await outside()), 'the control')
    shown.add(name)
  })
}

test.serial(`at least ${ATTEMPTS_MIN} attempts were shown to work where nothing prevents them`, (t) => {
  t.true(shown.size >= ATTEMPTS_MIN, `${shown.size} attempts`)
  t.is(new Set(NAMES).size, NAMES.length)
})

import test, { type ExecutionContext } from 'ava'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LIMITS } from '../../src/base/limits.ts'
import { silentLogger } from '../../src/base/log.ts'
import { Memberships } from '../../src/daemon/memberships.ts'
import { vouchedBy } from '../../src/ticket/membership.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { HOUR, NOW, makeKey } from '../ticket/fixtures.ts'
import { vouch } from '../ticket/memberships.ts'

interface Place {
  readonly key: SigningKey
  readonly clock: ManualClock
  readonly directory: string
  readonly open: () => Promise<Memberships>
}

async function place(t: ExecutionContext): Promise<Place> {
  const [key, clock] = [makeKey(), new ManualClock()]
  const stateDirectory = await mkdtemp(join(tmpdir(), 'slicenet-memberships-'))
  t.teardown(() => rm(stateDirectory, { recursive: true }))
  return {
    key,
    clock,
    directory: join(stateDirectory, 'memberships'),
    async open() {
      const init = { stateDirectory, member: key.principal }
      const memberships = new Memberships({ clock, logger: silentLogger }, init)
      await memberships.load()
      return memberships
    }
  }
}

test('what was taken in is shown, after a restart too', async (t) => {
  const { key, clock, open } = await place(t)
  const organisation = makeKey()
  const memberships = await open()
  t.deepEqual(memberships.shown(), [])
  const changes: number[] = []
  memberships.onChange(() => changes.push(memberships.shown().length))
  const { bytes } = await memberships.keep(vouch(organisation, key.principal).bytes)
  await memberships.keep(bytes)
  t.deepEqual(changes, [1, 1])
  const again = await open()
  t.deepEqual(again.shown(), [bytes])
  t.deepEqual(vouchedBy(again.shown(), { member: key.principal, now: clock.now() }), [organisation.principal])
})

test('of each organisation the newest that is valid is shown, and no more than others read', async (t) => {
  const { key, clock, open } = await place(t)
  const memberships = await open()
  const organisation = makeKey()
  await memberships.keep(vouch(organisation, key.principal, { seq: 1, notAfter: NOW + 3 * HOUR }).bytes)
  const later = vouch(organisation, key.principal, { seq: 2, notAfter: NOW + 2 * HOUR })
  await memberships.keep(later.bytes)
  t.deepEqual(memberships.shown(), [later.bytes])
  await clock.advance(2 * HOUR)
  t.is(memberships.shown().length, 1, 'the older one holds longer')
  for (let seq = 3; seq < LIMITS.membershipsKeptMax * 2; seq++) {
    await memberships.keep(vouch(makeKey(), key.principal, { seq, notAfter: NOW + 9 * HOUR }).bytes)
  }
  t.is(memberships.shown().length, LIMITS.membershipsShownMax)
  t.is(memberships.list().length, LIMITS.membershipsKeptMax)
  t.deepEqual((await open()).shown(), memberships.shown())
})

test('those whose time is over are shown no more and leave the disk', async (t) => {
  const { key, clock, directory, open } = await place(t)
  const memberships = await open()
  await memberships.keep(vouch(makeKey(), key.principal, { notAfter: NOW + HOUR }).bytes)
  t.is((await readdir(directory)).length, 1)
  await clock.advance(HOUR)
  t.deepEqual(memberships.shown(), [])
  await open()
  t.deepEqual(await readdir(directory), [])
})

test('what is foreign, forged or out of time is not taken in', async (t) => {
  const { key, directory, open } = await place(t)
  const memberships = await open()
  const organisation = makeKey()
  const refused = async (bytes: Uint8Array, code: string): Promise<void> => {
    await t.throwsAsync(memberships.keep(bytes), { code })
  }
  await refused(vouch(organisation, makeKey().principal).bytes, 'MEMBERSHIP_FOREIGN')
  await refused(vouch(organisation, key.principal, { notAfter: NOW }).bytes, 'MEMBERSHIP_EXPIRED')
  await refused(vouch(organisation, key.principal, { notBefore: NOW + 1 }).bytes, 'NOT_YET_VALID')
  const forged = Uint8Array.from(vouch(organisation, key.principal).bytes)
  forged[forged.length - 1]! ^= 1
  await refused(forged, 'SIGNATURE_INVALID')
  await refused(forged.subarray(1), 'ENCODING_INVALID')
  t.deepEqual(memberships.shown(), [])
  await t.throwsAsync(readdir(directory), { code: 'ENOENT' }, 'nothing was written')
})

test('files that are of no use are passed over', async (t) => {
  const { key, directory, open } = await place(t)
  const memberships = await open()
  const good = await memberships.keep(vouch(makeKey(), key.principal).bytes)
  await writeFile(join(directory, 'garbage.membership'), 'garbage')
  await writeFile(join(directory, `${good.id}.membership.new`), 'torn')
  const foreign = vouch(makeKey(), makeKey().principal)
  await writeFile(join(directory, `${foreign.id}.membership`), foreign.bytes)
  t.deepEqual((await open()).shown(), [good.bytes])
})

test('a membership under the longest name is not too large to be shown', async (t) => {
  const { key, open } = await place(t)
  const memberships = await open()
  const organisation = '組'.repeat(64)
  const seq = Number.MAX_SAFE_INTEGER
  await memberships.keep(vouch(makeKey(), key.principal, { organisation, seq }).bytes)
  t.true((memberships.shown()[0]?.length ?? Infinity) <= LIMITS.membershipBytesMax)
})

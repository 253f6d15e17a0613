import test from 'ava'
import type { AdmissionPolicy } from '../../src/agent/admission-policy.ts'
import { HOUR, NOW, makeKey } from '../ticket/fixtures.ts'
import { vouch } from '../ticket/memberships.ts'
import { overlay, slice } from './overlay.ts'

const MINUTE = 60_000
const organisation = makeKey()
const members = { principals: [], organisations: [organisation.principal] }
const policy: AdmissionPolicy = {
  rules: [
    {
      name: 'members',
      match: members,
      terms: { grants: 'slices', durationMsMax: 4 * HOUR, rights: [], perPrincipal: {}, perOrganisation: {} }
    }
  ]
}

test('a slice is had of agents and nodes that serve an organisation by whoever shows a membership of it', async (t) => {
  for (const init of [{ policy }, { accepts: members }, { policy, accepts: members }]) {
    const one = await overlay({ nodes: 2, agents: 1, ...init })
    const mesh = slice({ count: 2, leaseMs: MINUTE })
    await t.throwsAsync(one.services.create(mesh), { code: 'DENIED' }, 'nobody vouches for the user')
    one.shown.push(vouch(makeKey(), one.user.principal).bytes)
    await t.throwsAsync(one.services.create(mesh), { code: 'DENIED' }, 'another organisation does')
    one.shown.push(vouch(organisation, one.user.principal, { notAfter: NOW + 2 * HOUR }).bytes)
    t.is((await one.services.create(mesh)).state, 'active')
    await one.clock.advance(MINUTE / 2)
    t.true((await one.services.renew('mesh')).members.every(({ renewed }) => renewed))
    one.shown.length = 0
    await one.clock.advance(MINUTE / 2)
    const { members: after } = await one.services.renew('mesh')
    t.true(after.every(({ renewed, reason }) => !renewed && reason?.code === 'DENIED'))
  }
})

import test from 'ava'
import { LIMITS } from '../../src/base/limits.ts'
import { agentsAsked } from '../../src/broker/agents-asked.ts'
import type { AgentAdvertisement } from '../../src/ticket/advertisement.ts'
import { HOUR, NOW, makeKey } from '../ticket/fixtures.ts'
import { advertBody } from './adverts.ts'

const [one, other, third] = [makeKey(), makeKey(), makeKey()].map(({ principal }) => principal) as [
  string,
  string,
  string
]
const asker = { principal: makeKey().principal, organisations: [makeKey().principal] }
const [organisation = ''] = asker.organisations

function agent(issuer: string, changes: Partial<AgentAdvertisement> = {}): AgentAdvertisement {
  return {
    role: 'agent',
    issuer,
    notBefore: NOW,
    notAfter: NOW + HOUR,
    seq: 1,
    name: 'agent',
    epoch: 1,
    multiaddrs: [],
    attributes: {},
    nodes: 1,
    regions: ['eu'],
    organisations: [],
    ...changes
  }
}

const node = (...agents: string[]) => advertBody({ agents, attributes: { region: 'eu' } })

test('those whom most nodes name are asked first, and those without an advert as well', (t) => {
  t.deepEqual(agentsAsked([node(one), node(other, one)], [], asker), [one, other])
})

test('an agent that no node names is asked if it serves nodes there by its own word', (t) => {
  const asked = (changes: Partial<AgentAdvertisement>): string[] =>
    agentsAsked([node(one)], [agent(third, changes)], asker)
  t.deepEqual(asked({}), [one, third])
  t.deepEqual(asked({ regions: [] }), [one, third])
  t.deepEqual(asked({ regions: ['us'] }), [one])
  t.deepEqual(asked({ nodes: 0 }), [one])
})

test('an agent that does not serve the asker is not asked, whoever names it', (t) => {
  const asked = (principals: string[], organisations: string[]): string[] =>
    agentsAsked([node(one)], [agent(one, { accepts: { principals, organisations } })], asker)
  t.deepEqual(asked([], []), [])
  t.deepEqual(asked([other], [other]), [])
  t.deepEqual(asked([asker.principal], []), [one])
  t.deepEqual(asked([], [organisation]), [one])
})

test('however many agents nodes name, others have a place, and there is a bound', (t) => {
  const crowd = Array.from({ length: 4 }, () =>
    node(...Array.from({ length: LIMITS.agentsPerNodeMax }, () => makeKey().principal))
  )
  const asked = agentsAsked(crowd, [agent(third)], asker)
  t.is(asked.length, LIMITS.agentsAskedMax)
  t.true(asked.includes(third))
  const many = Array.from({ length: 200 }, () => agent(makeKey().principal))
  t.is(agentsAsked([node(one)], many, asker).length, LIMITS.agentsAskedMax)
  t.is(agentsAsked([node(one)], many, asker)[0], one)
})

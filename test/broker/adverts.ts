/** Adverts of nodes and agents for tests. */
import { advertisementObject, type NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { HOUR, IMAGE, NOW, amounts, makeKey } from '../ticket/fixtures.ts'

const somebody = makeKey()

export function advertBody(changes: Partial<NodeAdvertisement> = {}): NodeAdvertisement {
  return {
    role: 'node',
    issuer: somebody.principal,
    notBefore: NOW,
    notAfter: NOW + HOUR,
    seq: 1,
    name: 'one',
    epoch: 1,
    multiaddrs: [],
    attributes: { region: 'eu' },
    capacity: amounts(10),
    delegatedPercent: 100,
    free: amounts(5),
    images: { debian: IMAGE },
    agents: [],
    ...changes
  }
}

export function nodeAdvert(
  key: SigningKey,
  changes: Partial<NodeAdvertisement> = {}
): Signed<NodeAdvertisement> {
  const signed = advertisementObject.sign({ ...advertBody(changes), issuer: key.principal }, key)
  return signed as Signed<NodeAdvertisement>
}

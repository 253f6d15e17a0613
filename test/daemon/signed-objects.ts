/** A delegation and a ticket below it, signed by keys that are the same in every run. */
import { nativeEd25519 } from '../../src/wire/ed25519.ts'
import { delegationObject } from '../../src/ticket/delegation.ts'
import { principalOfPublicKey, type SigningKey } from '../../src/ticket/principal.ts'
import { NO_RESOURCES } from '../../src/ticket/resources.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'

function keyOf(byte: number): SigningKey {
  const seed = new Uint8Array(32).fill(byte)
  return { seed, principal: principalOfPublicKey(nativeEd25519.publicKey(seed)) }
}

export const nodeKey = keyOf(1)
export const agentKey = keyOf(2)
export const holderKey = keyOf(3)
export const NOW = 1_800_000_000_000

export const delegation = delegationObject.sign(
  {
    issuer: nodeKey.principal,
    notBefore: NOW,
    notAfter: NOW + 3_600_000,
    seq: 1,
    holder: agentKey.principal,
    resources: { ...NO_RESOURCES, cpuMillis: 1000, memoryBytes: 64 * 1024 * 1024 },
    ports: [{ protocol: 'tcp', first: 9000, last: 9100 }],
    rights: [],
    overbookPercent: 100,
    maxDepth: 1,
    epoch: 1,
    counts: []
  },
  nodeKey
)

export function ticketOf(fields: { readonly cpuMillis: number }): ReturnType<typeof ticketObject.sign> {
  return ticketObject.sign(
    {
      issuer: agentKey.principal,
      notBefore: NOW,
      notAfter: NOW + 1_800_000,
      seq: 1,
      parent: delegation.id,
      node: nodeKey.principal,
      holder: holderKey.principal,
      slice: 'mesh',
      resources: { ...NO_RESOURCES, cpuMillis: fields.cpuMillis },
      ports: [{ protocol: 'tcp', first: 9000, last: 9000 }],
      rights: [],
      canDelegate: false,
      redeemBefore: NOW + 600_000
    },
    agentKey
  )
}

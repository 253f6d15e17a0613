/** Keys and signed objects for tests; keys are made anew in every run. */
import { randomBytes } from 'node:crypto'
import { advertisementObject, type NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import { delegationObject, type Delegation } from '../../src/ticket/delegation.ts'
import { leaseObject, type Lease } from '../../src/ticket/lease.ts'
import { principalOfPublicKey, type SigningKey } from '../../src/ticket/principal.ts'
import { redeemObject, type Redeem } from '../../src/ticket/redeem.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { ticketObject, type Ticket } from '../../src/ticket/ticket.ts'
import { nativeEd25519 } from '../../src/wire/ed25519.ts'

export const NOW = Date.UTC(2026, 0, 1)
export const HOUR = 3_600_000
export const IMAGE = `sha256:${'ab'.repeat(32)}`

export function makeKey(): SigningKey {
  const seed = new Uint8Array(randomBytes(32))
  return { seed, principal: principalOfPublicKey(nativeEd25519.publicKey(seed)) }
}

export function amounts(factor: number): Resources {
  return {
    cpuMillis: 100 * factor,
    cpuMillisMax: 1000 * factor,
    memoryBytes: 1_000_000 * factor,
    diskBytes: 2_000_000 * factor,
    egressBps: 10_000 * factor,
    egressBpsMax: 100_000 * factor,
    egressBytesPerDay: 1_000_000_000 * factor,
    pids: 10 * factor
  }
}

export function delegate(
  node: SigningKey,
  agent: SigningKey,
  changes: Partial<Delegation> = {}
): Signed<Delegation> {
  return delegationObject.sign(
    {
      issuer: node.principal,
      holder: agent.principal,
      notBefore: NOW - HOUR,
      notAfter: NOW + 24 * HOUR,
      seq: 1,
      resources: amounts(10),
      ports: [{ protocol: 'tcp', first: 20_000, last: 20_009 }],
      rights: [],
      overbookPercent: 100,
      maxDepth: 3,
      epoch: 1,
      counts: [],
      ...changes
    },
    node
  )
}

export function issue(
  parent: Signed<Delegation> | Signed<Ticket>,
  agent: SigningKey,
  holder: SigningKey,
  changes: Partial<Ticket> = {}
): Signed<Ticket> {
  return ticketObject.sign(
    {
      issuer: agent.principal,
      notBefore: NOW - 60_000,
      notAfter: NOW + HOUR,
      seq: 1,
      parent: parent.id,
      node: 'node' in parent.body ? parent.body.node : parent.body.issuer,
      holder: holder.principal,
      slice: 'mesh',
      resources: amounts(1),
      ports: [{ protocol: 'tcp', first: 20_000, last: 20_000 }],
      rights: [],
      canDelegate: true,
      redeemBefore: NOW + 300_000,
      ...changes
    },
    agent
  )
}

export function demand(
  ticket: Signed<Ticket>,
  holder: SigningKey,
  changes: Partial<Redeem> = {}
): Signed<Redeem> {
  return redeemObject.sign(
    {
      issuer: holder.principal,
      notBefore: NOW - HOUR,
      notAfter: NOW + HOUR,
      seq: 1,
      ticket: ticket.id,
      node: ticket.body.node,
      nonce: new Uint8Array(16),
      image: IMAGE,
      keys: [],
      ...changes
    },
    holder
  )
}

/** A lease for an hour of one port, always the same, to the holder of `by`. */
export function lease(
  node: SigningKey,
  by: SigningKey,
  seq: number,
  changes: Partial<Lease> = {}
): Signed<Lease> {
  const body: Lease = {
    issuer: node.principal,
    notBefore: NOW,
    notAfter: NOW + HOUR,
    seq,
    ticket: `bafyrei${'a'.repeat(52)}`,
    holder: by.principal,
    slice: 'mesh',
    image: IMAGE,
    resources: amounts(1),
    ports: [{ protocol: 'tcp', first: 20_000, last: 20_000 }],
    rights: [],
    address: '192.0.2.1',
    vserver: `mesh-${seq}`,
    epoch: 1,
    ...changes
  }
  return leaseObject.sign(body, node)
}

/** The advert of a node with `amounts(10)`, of which it says that it delegated so much. */
export function advertise(
  node: SigningKey,
  delegatedPercent: number,
  changes: Partial<NodeAdvertisement> = {}
): Signed<NodeAdvertisement> {
  const body: NodeAdvertisement = {
    role: 'node',
    issuer: node.principal,
    notBefore: NOW,
    notAfter: NOW + 120_000,
    seq: 1,
    name: 'node1',
    epoch: 1,
    multiaddrs: [],
    attributes: {},
    capacity: amounts(10),
    free: amounts(10),
    delegatedPercent,
    images: {},
    agents: [],
    ...changes
  }
  return { ...advertisementObject.sign(body, node), body }
}

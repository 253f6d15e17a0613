/** Good bodies of every signed object, with the keys of this run that sign them: what the vectors begin with. */
import { randomBytes } from 'node:crypto'
import { advertisementObject, type Advertisement } from '../../src/ticket/advertisement.ts'
import { delegationObject } from '../../src/ticket/delegation.ts'
import { fraudProofObject } from '../../src/ticket/fraud-proof.ts'
import { inviteObject, type Invite } from '../../src/ticket/invite.ts'
import { leaseObject, type Lease } from '../../src/ticket/lease.ts'
import { logRootObject, type LogRoot } from '../../src/ticket/log-root.ts'
import { membershipObject, type Membership } from '../../src/ticket/membership.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { redeemObject } from '../../src/ticket/redeem.ts'
import { refusalObject } from '../../src/ticket/refusal.ts'
import { NO_RESOURCES, type Resources } from '../../src/ticket/resources.ts'
import type { ObjectType, SignedFields } from '../../src/ticket/signed-object.ts'
import { revocationObject } from '../../src/ticket/revocation.ts'
import { surrenderObject, type Surrender } from '../../src/ticket/surrender.ts'
import { RIGHTS } from '../../src/ticket/rights.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
import { HOUR, IMAGE, NOW, amounts, delegate, demand, issue, makeKey } from '../ticket/fixtures.ts'

export interface Sample {
  readonly object: ObjectType<SignedFields>
  readonly name: string
  readonly why: string
  readonly body: SignedFields
  readonly key: SigningKey
}

/** Amounts of every width that an integer can have in CBOR, up to the largest. */
const WIDE: Resources = {
  cpuMillis: 23,
  cpuMillisMax: 24,
  memoryBytes: 255,
  diskBytes: 256,
  egressBps: 65_535,
  egressBpsMax: 65_536,
  egressBytesPerDay: 4_294_967_296,
  pids: Number.MAX_SAFE_INTEGER
}

/** By type, an ordinary one first. */
export function sampleTypes(): Readonly<Record<string, readonly Sample[]>> {
  const [node, agent, holder] = [makeKey(), makeKey(), makeKey()]
  const delegation = delegate(node, agent)
  const ticket = issue(delegation, agent, holder)
  const redeem = demand(ticket, holder)
  const { slice: _any, ...wholesale } = ticket.body
  const revocation = {
    issuer: agent.principal,
    notBefore: NOW,
    notAfter: NOW + HOUR,
    seq: 1,
    node: node.principal,
    target: { id: ticket.id }
  }
  return {
    advertisement: adverts(node, agent),
    delegation: [
      sample(delegationObject, 'ordinary', 'as a node gives it', delegation.body, node),
      sample(
        delegationObject,
        'widest',
        'integers of every width, every right, ports of every protocol',
        {
          ...delegation.body,
          seq: Number.MAX_SAFE_INTEGER,
          resources: WIDE,
          ports: (['tcp', 'udp', 'icmp'] as const).map((protocol) => ({ protocol, first: 1, last: 65_535 })),
          rights: RIGHTS,
          overbookPercent: 1000,
          maxDepth: 8,
          counts: [ticket.id]
        },
        node
      )
    ],
    ticket: [
      sample(ticketObject, 'ordinary', 'as an agent grants it', ticket.body, agent),
      sample(
        ticketObject,
        'administrative',
        'for an administrative slice: capabilities, and no ports',
        { ...ticket.body, ports: [], rights: ['administrative', 'cap-net-raw'] as const },
        agent
      ),
      sample(
        ticketObject,
        'superseding',
        'names the ticket that it replaces; nothing in it but what must be',
        {
          ...ticket.body,
          supersedes: ticket.id,
          canDelegate: false,
          resources: NO_RESOURCES,
          ports: [],
          slice: 'a1',
          seq: 0
        },
        agent
      ),
      sample(ticketObject, 'wholesale', 'for no slice yet, for another agent to cut from', wholesale, agent)
    ],
    redeem: [
      sample(redeemObject, 'ordinary', 'no keys', redeem.body, holder),
      sample(
        redeemObject,
        'with keys, of a renewal',
        'a nonce of chance, a line of authorized_keys, the lease that is to be renewed',
        {
          ...redeem.body,
          renews: ticket.id,
          nonce: new Uint8Array(randomBytes(16)),
          keys: ['ssh-ed25519 AAAA someone@example']
        },
        holder
      )
    ],
    lease: leases(ticket.id, node, holder),
    surrender: [
      sample(surrenderObject, 'ordinary', 'gives a lease up', surrenderOf(ticket.id, node, holder), holder)
    ],
    'log-root': [
      sample(logRootObject, 'ordinary', 'of a log whose beginning was dropped', logRootOf(node, 17), node),
      sample(logRootObject, 'of a new log', 'begins before its first piece', logRootOf(node, 0), node)
    ],
    revocation: [
      sample(revocationObject, 'of one', 'takes one ticket back', revocation, agent),
      sample(
        revocationObject,
        'of all before',
        'takes back every ticket of an issuer below a sequence number, signed by the node',
        { ...revocation, issuer: node.principal, target: { issuer: agent.principal, beforeSeq: 24 } },
        node
      )
    ],
    'fraud-proof': [
      sample(
        fraudProofObject,
        'ordinary',
        'names kind, accused and evidence',
        {
          issuer: holder.principal,
          notBefore: NOW,
          notAfter: NOW + HOUR,
          seq: 1,
          kind: 'over-issued' as const,
          accused: agent.principal,
          evidence: [delegation.id, ticket.id]
        },
        holder
      )
    ],
    membership: [
      sample(
        membershipObject,
        'ordinary',
        'an organisation vouches for a principal',
        vouch(agent, holder),
        agent
      )
    ],
    invite: invites(agent, holder),
    refusal: [
      sample(
        refusalObject,
        'ordinary',
        'refuses a signed request, and shows why',
        {
          issuer: node.principal,
          notBefore: NOW,
          notAfter: NOW + HOUR,
          seq: 7,
          code: 'TICKET_EXPIRED',
          message: 'this ticket was to be redeemed before 2026-01-01T00:00:00.000Z',
          request: redeem.id,
          evidence: [ticket.id]
        },
        node
      ),
      sample(
        refusalObject,
        'of nothing signed',
        'no request, no evidence; the message is not ASCII',
        {
          issuer: node.principal,
          notBefore: NOW,
          notAfter: NOW + HOUR,
          seq: 8,
          code: 'OVERBOOKED',
          message: 'zu viel – 太多',
          evidence: []
        },
        node
      )
    ]
  }
}

function sample<T extends SignedFields>(
  object: ObjectType<T>,
  name: string,
  why: string,
  body: T,
  key: SigningKey
): Sample {
  // What is signed below is always a body of the object's own type.
  return { object, name, why, body, key }
}

function vouch(organisation: SigningKey, member: SigningKey): Membership {
  return {
    issuer: organisation.principal,
    notBefore: NOW,
    notAfter: NOW + HOUR,
    seq: 1,
    member: member.principal,
    organisation: 'example'
  }
}

function invites(organisation: SigningKey, invited: SigningKey): Sample[] {
  const { member: _member, ...term } = vouch(organisation, invited)
  const at = (address: string): string => `${address}/p2p/${organisation.principal}`
  const ofAnybody: Invite = { ...term, bootstrap: [at('/ip4/192.0.2.1/tcp/4001')] }
  const ofOne: Invite = {
    ...ofAnybody,
    organisation: 'Universität 例',
    bootstrap: [
      at('/ip4/192.0.2.1/tcp/4001'),
      at('/ip6/2001:db8::1/tcp/4001'),
      at('/dns4/boot.example/tcp/4001'),
      at(`/ip4/192.0.2.9/tcp/4001/p2p/${invited.principal}/p2p-circuit`)
    ],
    membership: membershipObject.sign(vouch(organisation, invited), organisation).bytes
  }
  return [
    sample(inviteObject, 'of anybody', 'names a peer to join by and nothing else', ofAnybody, organisation),
    sample(inviteObject, 'of one', 'addresses of every kind, and a membership', ofOne, organisation)
  ]
}

function adverts(node: SigningKey, agent: SigningKey): Sample[] {
  const common = {
    notBefore: NOW,
    notAfter: NOW + 120_000,
    seq: 3,
    name: 'node-1.example',
    epoch: 1,
    multiaddrs: ['/ip4/192.0.2.1/tcp/4001'],
    attributes: { region: 'eu', cores: 8, offset: -1 }
  }
  const ofNode: Advertisement = {
    ...common,
    issuer: node.principal,
    role: 'node',
    capacity: WIDE,
    free: amounts(1),
    delegatedPercent: 100,
    images: { debian: IMAGE },
    agents: [agent.principal]
  }
  const ofAgent: Advertisement = {
    ...common,
    issuer: agent.principal,
    role: 'agent',
    nodes: 2,
    regions: ['eu'],
    organisations: ['example']
  }
  const whole: Advertisement = {
    ...ofNode,
    accepts: { principals: [agent.principal], organisations: [node.principal] },
    memberships: [membershipObject.sign(vouch(agent, node), agent).bytes],
    rights: ['raw-socket', 'administrative', 'cap-net-raw'],
    administrators: [agent.principal],
    coordinate: { vector: [0, -1, 60_000_000, -60_000_000], height: 250, error: 1000 }
  }
  return [
    sample(advertisementObject, 'of a node', 'integers of every width', ofNode, node),
    sample(advertisementObject, 'of an agent', 'the other role', ofAgent, agent),
    sample(
      advertisementObject,
      'of a node, with all it may say',
      'everything that may be absent is there',
      whole,
      node
    )
  ]
}

function surrenderOf(lease: string, node: SigningKey, holder: SigningKey): Surrender {
  const term = { notBefore: NOW, notAfter: NOW + HOUR }
  return { issuer: holder.principal, ...term, seq: 1, node: node.principal, lease, vserver: 'v-1' }
}

function logRootOf(node: SigningKey, begin: number): LogRoot {
  const place = (sequence: number): LogRoot['head'] => ({ sequence, link: new Uint8Array(randomBytes(32)) })
  const interval = { notBefore: NOW - HOUR, notAfter: NOW }
  return {
    issuer: node.principal,
    ...interval,
    seq: NOW,
    log: 'flows',
    begin: place(begin),
    head: place(begin + 3)
  }
}

function leases(ticket: string, node: SigningKey, holder: SigningKey): Sample[] {
  const body: Lease = {
    issuer: node.principal,
    notBefore: NOW,
    notAfter: NOW + HOUR,
    seq: 1,
    ticket,
    holder: holder.principal,
    slice: 'mesh',
    image: IMAGE,
    resources: amounts(1),
    ports: [{ protocol: 'tcp', first: 20_000, last: 20_000 }],
    rights: [],
    address: '192.0.2.1',
    vserver: 'v-1',
    epoch: 1
  }
  const first = leaseObject.sign(body, node)
  const released = surrenderObject.sign(surrenderOf(first.id, node, holder), holder)
  return [
    sample(leaseObject, 'ordinary', 'as a node gives it', body, node),
    sample(
      leaseObject,
      'renewal',
      'names the lease that it renews',
      { ...body, seq: 2, address: '2001:db8::1', prev: first.id },
      node
    ),
    sample(
      leaseObject,
      'of released ports',
      'carries the surrender of the lease that had its ports before',
      { ...body, seq: 3, vserver: 'v-2', released: [released.bytes] },
      node
    )
  ]
}

import test from 'ava'
import { LIMITS } from '../../src/base/limits.ts'
import { delegationObject } from '../../src/ticket/delegation.ts'
import { fraudProofObject } from '../../src/ticket/fraud-proof.ts'
import { leaseObject } from '../../src/ticket/lease.ts'
import { RESOURCE_NAMES, type Resources } from '../../src/ticket/resources.ts'
import { RIGHTS } from '../../src/ticket/rights.ts'
import { surrenderObject } from '../../src/ticket/surrender.ts'
import { delegate, lease, makeKey } from './fixtures.ts'

/** What a node or agent is sure to need one day must be possible to sign: the limits of the parts fit those of the whole. */
const [node, holder] = [makeKey(), makeKey()]
const MOST = Number.MAX_SAFE_INTEGER
const LATEST = 8_640_000_000_000_000
const term = { notBefore: LATEST - 1, notAfter: LATEST, seq: MOST }
const resources = Object.fromEntries(RESOURCE_NAMES.map((name) => [name, MOST])) as Resources
const ports = Array.from({ length: LIMITS.portRangesPerTicketMax }, (_one, index) => ({
  protocol: 'icmp' as const,
  first: 60_000 + index,
  last: 65_000
}))
const wide = { ...term, resources, ports, rights: RIGHTS, epoch: MOST }

/** Sorted ids that differ, each as long as any. */
function ids(count: number): string[] {
  const digits = 'abcdefghijklmnopqrstuvwxyz234567'
  return Array.from({ length: count }, (_one, index) => {
    const end = `${digits[index >> 5] ?? ''}${digits[index & 31] ?? ''}`
    return `bafyrei${'a'.repeat(50)}${end}`
  }).sort()
}

const [id = ''] = ids(1)
const vserver = 'v'.repeat(40)
const surrender = surrenderObject.sign(
  { issuer: holder.principal, ...term, node: node.principal, lease: id, vserver },
  holder
)

test('the largest surrender is no larger than a lease takes', (t) => {
  t.true(surrender.bytes.length <= LIMITS.surrenderBytesMax, `${surrender.bytes.length}`)
})

test('a lease has room for every surrender that it may carry', (t) => {
  const released = Array.from({ length: LIMITS.surrendersPerLeaseMax }, () => surrender.bytes)
  const text = { slice: 's'.repeat(32), vserver, address: 'a'.repeat(45), prev: id }
  const { bytes } = lease(node, holder, MOST, { ...wide, ...text, released })
  t.notThrows(() => leaseObject.open(bytes))
})

test('a delegation has room for every ticket that it may count', (t) => {
  const { bytes } = delegate(node, holder, { ...wide, counts: ids(LIMITS.countedTicketsMax) })
  t.notThrows(() => delegationObject.open(bytes))
})

test('a proof has room for every piece of evidence that it may name', (t) => {
  const evidence = ids(LIMITS.proofObjectsMax)
  const about = { kind: 'port-leased-twice' as const, accused: node.principal, evidence }
  const { bytes } = fraudProofObject.sign({ issuer: holder.principal, ...term, ...about }, holder)
  t.notThrows(() => fraudProofObject.open(bytes))
})

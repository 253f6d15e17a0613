/**
 * Measures what tickets cost: checking a chain against bare signature checks, a node's decision beside many leases
 * against one beside few, and the tickets that an agent grants durably a second.
 */
import { createPublicKey, verify } from 'node:crypto'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import type { Enforcer } from '../../src/enforce/enforcer.ts'
import { admissionFault, overdrawnFault } from '../../src/node/admission.ts'
import { LeaseTable } from '../../src/node/lease-table.ts'
import { Redemption, type RedemptionRequest } from '../../src/node/redemption.ts'
import { RevocationList } from '../../src/node/revocation-list.ts'
import { SteadyClock } from '../../src/node/steady-clock.ts'
import { FraudWatch } from '../../src/ticket/fraud-watch.ts'
import { MemoryStore } from '../../src/store/memory-store.ts'
import { chainFault, type Chain } from '../../src/ticket/chain.ts'
import { delegationObject } from '../../src/ticket/delegation.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
import { decodeEnvelope } from '../../src/wire/envelope.ts'
import { HOUR, NOW, amounts, delegate, demand, issue, makeKey } from '../ticket/fixtures.ts'
import { figure, median, type BenchContext, type Figure } from './figure.ts'
import { grants } from './grants.ts'

const RUNS = 7
const CHAINS_PER_RUN = 1000
const DECISIONS_PER_RUN = 150
/** Until the engine has compiled what it will. */
const WARM_UP = 3000

export async function tickets(context: BenchContext): Promise<readonly Figure[]> {
  const chain = chains(context)
  context.progress('chains: done')
  const admission = await admissions(context)
  context.progress('admission: done')
  return [...chain, ...admission, ...(await grants(context))]
}

/** One chain after three bare checks, again and again: whatever else the machine does slows both. */
function chains({ signal }: BenchContext): Figure[] {
  const [node, agent, reseller, holder] = [makeKey(), makeKey(), makeKey(), makeKey()]
  const delegation = delegate(node, agent)
  const first = issue(delegation, agent, reseller)
  const links = [delegation, first, issue(first, reseller, holder)]
  const [root, ...rest] = links.map(({ bytes }) => bytes)
  const presentation = { node: node.principal, holder: holder.principal, now: NOW }
  const checkChain = (): void => {
    const chain = {
      delegation: delegationObject.open(root!.slice()),
      tickets: rest.map((bytes) => ticketObject.open(bytes.slice()))
    }
    if (chainFault(chain, presentation) !== undefined) throw new TypeError('a good chain was refused')
  }
  const signed = links.map(({ bytes }, index) => {
    const { payload, signer, signature } = decodeEnvelope(bytes)
    const x = Buffer.from(signer).toString('base64url')
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
    const type = index === 0 ? delegationObject.type : ticketObject.type
    return { key, signature, message: Buffer.concat([Buffer.from(`slicenet/v1/${type}\0`), payload]) }
  })
  const checkBare = (): void => {
    for (const { key, message, signature } of signed) {
      if (!verify(null, message, key, signature)) throw new TypeError('a good signature was refused')
    }
  }
  pairs(checkChain, checkBare, WARM_UP)
  const samples: { chain: number; bare: number }[] = []
  for (let run = 0; run < RUNS; run++) {
    signal.throwIfAborted()
    const [chain, bare] = pairs(checkChain, checkBare, CHAINS_PER_RUN)
    samples.push({ chain, bare })
  }
  return [
    figure(
      'chain3_verify_over_bare',
      samples.map(({ chain, bare }) => bare / chain),
      { unit: 'ratio', atLeast: 0.7 }
    ),
    figure(
      'chains3_per_s',
      samples.map(({ chain }) => 1000 / chain),
      { unit: '1/s' }
    ),
    figure(
      'bare_verify_per_s',
      samples.map(({ bare }) => (1000 * links.length) / bare),
      { unit: '1/s' }
    )
  ]
}

/** The median milliseconds of each of two, which take turns. */
function pairs(one: () => void, other: () => void, rounds: number): [number, number] {
  const times: [number[], number[]] = [[], []]
  for (let round = 0; round < rounds; round++) {
    const began = performance.now()
    one()
    const between = performance.now()
    other()
    times[0].push(between - began)
    times[1].push(performance.now() - between)
  }
  return [median(times[0]), median(times[1])]
}

interface Demanded {
  readonly chain: Chain
  readonly request: RedemptionRequest
  readonly holder: SigningKey
}

/** A node with so many leases, and fresh demands for one more. */
interface LeasingNode {
  readonly table: LeaseTable
  readonly redemption: Redemption
  readonly demand: () => Demanded
}

const CAPACITY = amounts(100_000)
const AGENTS = 10

async function leasingNode(leases: number): Promise<LeasingNode> {
  const [key, holder] = [makeKey(), makeKey()]
  const store = new MemoryStore()
  await store.start()
  const { table } = await LeaseTable.open(store)
  const clock = new SteadyClock(systemClock, 0)
  const watch = new FraudWatch()
  const enforcer = { create: async () => {}, destroy: async () => {} } as unknown as Enforcer
  const redemption = new Redemption(
    {
      key,
      table,
      clock,
      enforcer,
      revocations: await RevocationList.open(store, key.principal),
      delegations: { fault: () => undefined, isAgent: () => true, freed: () => {} },
      observe: (object) => watch.observe(object),
      logger: silentLogger
    },
    { capacity: CAPACITY, address: () => '198.18.0.1', epoch: 1 }
  )
  const agents = Array.from({ length: AGENTS }, () => makeKey())
  const now = systemClock.now()
  const term = { notBefore: now - HOUR, notAfter: now + 24 * HOUR }
  const ports = [{ protocol: 'tcp' as const, first: 1024, last: 65_535 }]
  const delegations = agents.map((agent) => delegate(key, agent, { ...term, ports, resources: CAPACITY }))
  let seq = 0
  const demandOne = (): Demanded => {
    const which = ++seq % AGENTS
    const [agent, delegation] = [agents[which]!, delegations[which]!]
    const port = 1024 + (seq % 60_000)
    const ticket = issue(delegation, agent, holder, {
      notBefore: now - HOUR,
      notAfter: now + HOUR + seq,
      redeemBefore: now + HOUR,
      seq,
      ports: [{ protocol: 'tcp', first: port, last: port }]
    })
    const redeem = demand(ticket, holder, { notBefore: now - HOUR, notAfter: now + HOUR, seq })
    const request = { redeem: redeem.bytes, delegation: delegation.bytes, tickets: [ticket.bytes] }
    return { chain: { delegation, tickets: [ticket] }, request, holder }
  }
  const node = { table, redemption, demand: demandOne }
  for (let lease = 0; lease < leases; lease++) {
    const { request } = demandOne()
    await redemption.redeem(request, holder.principal)
  }
  if (table.holding().length !== leases) throw new TypeError('a good demand was refused')
  return node
}

async function admissions({ signal, progress }: BenchContext): Promise<Figure[]> {
  const nodes = [await leasingNode(10), await leasingNode(1000)] as const
  progress('nodes with 10 and with 1,000 leases: made')
  const [whole, bare]: [number[], number[]] = [[], []]
  for (let run = -1; run < RUNS; run++) {
    signal.throwIfAborted()
    const times: { whole: [number[], number[]]; bare: [number[], number[]] } = {
      whole: [[], []],
      bare: [[], []]
    }
    for (let decision = 0; decision < DECISIONS_PER_RUN; decision++) {
      for (const [index, node] of nodes.entries()) {
        times.bare[index]!.push(decideBare(node))
        times.whole[index]!.push(await decide(node))
      }
    }
    // The first is for the engine to compile.
    if (run < 0) continue
    whole.push(median(times.whole[1]) / median(times.whole[0]))
    bare.push(median(times.bare[1]) / median(times.bare[0]))
  }
  return [
    figure('admission_1000_over_10', whole, { unit: 'ratio', atMost: 1.2 }),
    figure('admission_bare_1000_over_10', bare, { unit: 'ratio', atMost: 1.2 })
  ]
}

/** Milliseconds from a demand to its lease; afterwards the node has as many leases as before. */
async function decide({ table, redemption, demand }: LeasingNode): Promise<number> {
  const { request, holder } = demand()
  const began = performance.now()
  const outcome = await redemption.redeem(request, holder.principal)
  const elapsed = performance.now() - began
  const record = 'lease' in outcome ? table.ofLease(outcome.lease.id) : undefined
  if (record === undefined) throw new TypeError('a good demand was refused')
  await table.withdraw(record)
  return elapsed
}

/** Milliseconds of the decision alone, without the checks of signatures and without what is written. */
function decideBare({ table, demand }: LeasingNode): number {
  const { chain } = demand()
  const wanted = { ...chain.tickets[0]!.body, notBefore: systemClock.now() }
  const began = performance.now()
  for (let time = 0; time < 10; time++) {
    const fault =
      overdrawnFault(chain, wanted, table.leased) ?? admissionFault(wanted, table.leased, CAPACITY)
    if (fault !== undefined) throw new TypeError(`a good demand was refused: ${fault.message}`)
  }
  return (performance.now() - began) / 10
}

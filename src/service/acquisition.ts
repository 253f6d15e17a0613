/**
 * Acquiring one slice: nodes are found, tickets for all of them are held, and then they are redeemed; where a node
 * refuses, another takes its place. Each step is in the book before the next, so that a crash resumes where it was.
 */
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { together } from '../base/together.ts'
import type { Broker } from '../broker/broker.ts'
import { nothingKnownOf } from '../broker/compatibility.ts'
import { FailedPairs } from '../broker/failed-pairs.ts'
import type { Holding } from '../broker/grant.ts'
import { compilePlacement } from '../broker/placement.ts'
import type { Matching } from '../broker/planning.ts'
import type { Want } from '../protocol/broker-protocol.ts'
import type { Demands } from './demands.ts'
import type { MemberCalls } from './member-calls.ts'
import { Receipts } from './receipts.ts'
import type { MemberRecord, SliceBook, SliceRecord } from './slice-book.ts'
import type { ProgressOptions } from './service-manager.ts'
import { explainedShortfall, isBound, minimumOf, requireEnough, shortfall } from './slice-match.ts'
import { wantOf } from './slice-want.ts'
import type { Progress, SliceDescription } from './slice.ts'

export interface AcquisitionComponents {
  readonly demands: Demands
  readonly broker: Broker
  readonly book: SliceBook
  readonly calls: MemberCalls
  readonly observe: (envelopes: readonly Uint8Array[]) => void
  readonly clock: Clock
  readonly logger: Logger
}

/** Rounds of tickets and redemptions; each replaces the members that the one before could not get. */
const ROUNDS_MAX = 4

export class Acquisition {
  readonly #components: AcquisitionComponents
  constructor(components: AcquisitionComponents) {
    this.#components = components
  }

  /**
   * Finds out whether the slice can be had at all and writes it down. Gives the nodes that match. Throws `NO_MATCH`,
   * `IMAGE_MISSING`.
   */
  async begin(description: SliceDescription, options: ProgressOptions): Promise<Matching> {
    const began = this.#components.clock.monotonic()
    const matching = await this.#match(wantOf(description), options)
    const image = requireEnough(description, matching)
    await this.#components.book.add({
      description,
      state: 'acquiring',
      image,
      createdAt: this.#components.clock.now(),
      members: new Map()
    })
    const count = matching.explanations.filter(({ matches }) => matches).length
    await this.#report('find', `${count} nodes match`, began, options)
    return matching
  }

  /**
   * Brings a slice that was written down to run. Throws what stood in the way when the minimum is not reached.
   * `known`: what `begin` found a moment ago, so that the first round need not ask every peer again.
   */
  async complete(name: string, options: ProgressOptions, known?: Matching): Promise<void> {
    const failed = new FailedPairs()
    const { description, image } = this.#slice(name)
    const minimum = minimumOf(description)
    const want = { ...wantOf(description), image }
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const missing = description.count - this.#current(name).length
      if (missing > 0) {
        const found = round === 0 ? known : undefined
        await this.#hold(name, found ?? (await this.#match(want, options)), failed, options)
      }
      const held = this.#current(name)
      if (
        held.length < minimum &&
        round + 1 < ROUNDS_MAX &&
        (await this.#regroup(name, want, failed, options))
      )
        continue
      // No virtual machine is made for a slice that there are not tickets enough for.
      if (held.length < minimum || held.every(({ state }) => state === 'leased')) break
      await this.#redeem(name, failed, options)
    }
    const members = this.#current(name)
    if (members.length < minimum) {
      const { broker } = this.#components
      throw await explainedShortfall(broker, description, members.length, failed, options.signal)
    }
    const launched = await this.#launch(description, members, failed, options)
    const isPartial = launched < description.count
    if (isPartial) {
      const { message } = shortfall(description, launched, failed)
      await options.onProgress?.({ step: 'redeem', message })
    }
    await this.#components.book.setState(name, isPartial ? 'partial' : 'active')
  }

  async #match(want: Want, { signal }: ProgressOptions): Promise<Matching> {
    return this.#components.broker.match(want, signal === undefined ? {} : { signal })
  }

  /**
   * When no more nodes go with the members that there are: whether others, without those that refused, make a slice. Then
   * the members are given up; those that cannot be yet stay in the book for it.
   */
  async #regroup(
    name: string,
    want: Want,
    failed: FailedPairs,
    { signal }: ProgressOptions
  ): Promise<boolean> {
    const { broker, book, calls, logger } = this.#components
    const members = this.#current(name)
    if (members.length === 0 || !isBound(this.#slice(name).description)) return false
    const { satisfiable } = await broker.plan(want, {
      isRuledOut: (pair) => failed.has(pair),
      ...(signal === undefined ? {} : { signal })
    })
    if (!satisfiable) return false
    const dropping = members.map((member) => ({ ...member, state: 'dropping' as const }))
    await book.putMembers(name, dropping)
    const released: MemberRecord[] = []
    const drop = async (member: MemberRecord): Promise<void> => {
      try {
        await calls.drop(member, signal)
      } catch (error) {
        logger.info('a member could not be given up yet', { slice: name, node: member.node, error })
        return
      }
      await book.removeMember(name, member)
      released.push(member)
    }
    await together(dropping.map(drop))
    signal?.throwIfAborted()
    await broker.release(released)
    return true
  }

  /** Gets tickets for the members that are missing and writes them down with the demands that will redeem them. */
  async #hold(
    name: string,
    { explanations }: Matching,
    failed: FailedPairs,
    options: ProgressOptions
  ): Promise<void> {
    const began = this.#components.clock.monotonic()
    const { broker, book } = this.#components
    const { description, image } = this.#slice(name)
    const { count, query, resources, ports, rights, shaping, leaseMs } = description
    const adverts = new Map(explanations.map(({ node, advert }) => [node, advert.body]))
    const members = this.#current(name)
    const taken = new Set(members.map(({ node }) => node))
    const byAgent = Map.groupBy(members, ({ agent }) => agent)
    const holdings = await broker.getTickets(
      {
        slice: name,
        count: count - members.length,
        minimum: Math.max(0, minimumOf(description) - members.length),
        request: {
          resources,
          ports,
          rights,
          ...(shaping === undefined ? {} : { shaping }),
          durationMs: leaseMs
        },
        nodes: explanations.flatMap(({ node, matches, advert }) =>
          matches && !taken.has(node) ? [advert.body] : []
        ),
        query,
        placement: compilePlacement(description),
        held: members.map(({ node, nodeName }) => adverts.get(node) ?? nothingKnownOf(node, nodeName)),
        failed,
        granted: new Map([...byAgent].map(([agent, granted]) => [agent, granted.length]))
      },
      options.signal === undefined ? {} : { signal: options.signal }
    )
    for (const { chain } of holdings) this.#components.observe(chain)
    const agentNames = new Map(broker.agents().map((advert) => [advert.issuer, advert.name]))
    const nodeNames = new Map(explanations.map((one) => [one.node, one.name]))
    await book.putMembers(
      name,
      holdings.map((holding) => this.#member(holding, image, nodeNames, agentNames))
    )
    const by = new Set(holdings.map(({ agent }) => agent)).size
    await this.#report('tickets', `${holdings.length} tickets from ${by} agents`, began, options)
  }

  #member(
    { node, agent, chain, ticket }: Holding,
    image: string,
    nodeNames: ReadonlyMap<string, string>,
    agentNames: ReadonlyMap<string, string>
  ): MemberRecord {
    return {
      node,
      nodeName: nodeNames.get(node) ?? node,
      agent,
      agentName: agentNames.get(agent) ?? agent,
      chain,
      ticket,
      redeem: this.#components.demands.redeem(ticket, image).bytes,
      state: 'wanted'
    }
  }

  async #redeem(name: string, failed: FailedPairs, options: ProgressOptions): Promise<void> {
    const began = this.#components.clock.monotonic()
    const { book, broker, calls, logger } = this.#components
    const wanted = this.#current(name).filter(({ state }) => state === 'wanted')
    const refused: MemberRecord[] = []
    const receipts = new Receipts(this.#components)
    const refuse = (member: MemberRecord, error: SlicenetError): void => {
      logger.info('a ticket was not redeemed', { slice: name, node: member.node, error })
      failed.addRefusal(member, error)
    }
    const redeem = async (member: MemberRecord): Promise<void> => {
      try {
        const outcome = await calls.redeem(member, options.signal)
        receipts.add(member.agent, member, outcome)
        if ('lease' in outcome) {
          this.#components.observe([outcome.lease.bytes])
          return await book.putMembers(name, [{ ...member, lease: outcome.lease, state: 'leased' }])
        }
        refuse(member, outcome.refused)
      } catch (error) {
        options.signal?.throwIfAborted()
        receipts.add(member.agent, member)
        refuse(member, asSlicenetError(error))
        return book.putMembers(name, [{ ...member, state: 'dropping' }])
      }
      await book.removeMember(name, member)
      refused.push(member)
    }
    await together(wanted.map(redeem))
    receipts.tell()
    await broker.release(refused)
    await this.#report('redeem', `${this.#current(name).length} leases`, began, options)
  }

  /**
   * Every member learns where the others are, so programs are launched only when all leases are known. Gives on how
   * many members they run.
   */
  async #launch(
    description: SliceDescription,
    members: readonly MemberRecord[],
    failed: FailedPairs,
    options: ProgressOptions
  ): Promise<number> {
    const { calls, clock } = this.#components
    const { files, program } = description
    let able = members
    const onEach = async (work: (member: MemberRecord) => Promise<void>): Promise<MemberRecord[]> =>
      this.#onEach(description, able, failed, work, options)
    if (files.length > 0) {
      const began = clock.monotonic()
      able = await onEach((member) => calls.upload(member, files, options.signal))
      await this.#report('upload', `${files.length} files to ${able.length} members`, began, options)
    }
    if (program === undefined) return able.length
    const began = clock.monotonic()
    const env = { SLICENET_MEMBERS: membersLine(able), ...program.env }
    able = await onEach((member) => calls.launch(member, { ...program, env }, options.signal))
    await this.#report('launch', `${program.argv[0]} runs on ${able.length} members`, began, options)
    return able.length
  }

  /**
   * Does the same for each member. Those where it fails are given up if enough are left, and the others given back;
   * else it throws what the last failed with.
   */
  async #onEach(
    description: SliceDescription,
    members: readonly MemberRecord[],
    failed: FailedPairs,
    work: (member: MemberRecord) => Promise<void>,
    options: ProgressOptions
  ): Promise<MemberRecord[]> {
    const able: MemberRecord[] = []
    const failing: MemberRecord[] = []
    const attempt = async (member: MemberRecord): Promise<void> => {
      try {
        await work(member)
        able.push(member)
      } catch (thrown) {
        const error = asSlicenetError(thrown)
        const named = new SlicenetError(error.code, `${member.nodeName}: ${error.message}`, { cause: error })
        failed.addNode(member.node, named)
        failing.push({ ...member, state: 'dropping' })
      }
    }
    await together(members.map(attempt))
    options.signal?.throwIfAborted()
    if (failing.length > 0 && able.length < minimumOf(description) && failed.last !== undefined)
      throw failed.last
    await this.#components.book.putMembers(description.name, failing)
    return able
  }

  /** Members that are held or about to be. */
  #current(name: string): MemberRecord[] {
    return [...this.#slice(name).members.values()].filter(({ state }) => state !== 'dropping')
  }

  #slice(name: string): SliceRecord {
    const record = this.#components.book.get(name)
    if (record === undefined) throw new SlicenetError('NOT_FOUND', `slice ${name} was deleted meanwhile`)
    return record
  }

  async #report(
    step: Progress['step'],
    message: string,
    began: number,
    options: ProgressOptions
  ): Promise<void> {
    const ms = Math.round(this.#components.clock.monotonic() - began)
    await options.onProgress?.({ step, message, ms })
  }
}

/** `name=address:port` of each member with a TCP port, `name=address` of others, one space between. */
function membersLine(members: readonly MemberRecord[]): string {
  const places = members.map(({ nodeName, lease }) => {
    const tcp = lease?.body.ports.find(({ protocol }) => protocol === 'tcp')
    const address = lease?.body.address ?? ''
    return `${nodeName}=${tcp === undefined ? address : `${address}:${tcp.first}`}`
  })
  return places.sort().join(' ')
}

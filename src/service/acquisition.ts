/**
 * Acquiring one slice: nodes are found, tickets for all of them are held, and then they are redeemed; where a node
 * refuses, another takes its place. Each step is in the book before the next, so that a crash resumes where it was.
 */
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { Broker, FoundNode } from '../broker/broker.ts'
import { FailedPairs } from '../broker/failed-pairs.ts'
import type { Holding } from '../broker/grant.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { SigningKey } from '../ticket/principal.ts'
import { redeemObject } from '../ticket/redeem.ts'
import { isUncertain, type MemberCalls } from './member-calls.ts'
import type { MemberRecord, SliceBook, SliceRecord } from './slice-book.ts'
import type { ProgressOptions } from './service-manager.ts'
import type { Progress, SliceDescription } from './slice.ts'

export interface AcquisitionComponents {
  readonly key: SigningKey
  readonly broker: Broker
  readonly book: SliceBook
  readonly calls: MemberCalls
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
}

/** Rounds of tickets and redemptions; each replaces the members that the one before could not get. */
const ROUNDS_MAX = 4

export class Acquisition {
  readonly #components: AcquisitionComponents

  constructor(components: AcquisitionComponents) {
    this.#components = components
  }

  /** Finds out whether the slice can be had at all and writes it down. Throws `NO_MATCH`, `IMAGE_MISSING`. */
  async begin(description: SliceDescription, options: ProgressOptions): Promise<void> {
    const began = this.#components.clock.monotonic()
    const { nodes, image } = await this.#find(description, options)
    await this.#components.book.add({
      description,
      state: 'acquiring',
      image,
      createdAt: this.#components.clock.now(),
      members: new Map()
    })
    await this.#report('find', `${nodes.length} nodes match`, began, options)
  }

  /** Brings a slice that was written down to run. Throws what stood in the way when the minimum is not reached. */
  async complete(name: string, options: ProgressOptions): Promise<void> {
    const failed = new FailedPairs()
    const { book } = this.#components
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const record = this.#slice(name)
      const missing = record.description.count - current(record).length
      if (missing > 0) {
        const got = await this.#hold(record, missing, failed, options)
        if (got === 0 && current(record).every(({ state }) => state === 'leased')) break
      }
      await this.#redeem(name, failed, options)
      if (current(this.#slice(name)).length === record.description.count) break
    }
    const record = this.#slice(name)
    const leased = current(record)
    if (leased.length < record.description.minimum) throw shortfall(record, leased.length, failed)
    await this.#launch(record, leased, options)
    const isPartial = leased.length < record.description.count
    if (isPartial)
      await options.onProgress?.({
        step: 'redeem',
        message: shortfall(record, leased.length, failed).message
      })
    await book.setState(name, isPartial ? 'partial' : 'active')
  }

  /** The nodes that match, have the image and have room by their own word. */
  async #find(
    description: SliceDescription,
    { signal }: ProgressOptions
  ): Promise<{ nodes: NodeAdvertisement[]; image: string }> {
    const { query, image: wanted, count, minimum } = description
    const { found, mismatches } = await this.#components.broker.find(
      query,
      signal === undefined ? {} : { signal }
    )
    const image = imageId(found, wanted)
    const adverts = found.map(({ advert }) => advert.body)
    const withImage =
      image === undefined ? [] : adverts.filter(({ images }) => Object.values(images).includes(image))
    if (adverts.length > 0 && image === undefined) {
      throw new SlicenetError('IMAGE_MISSING', `no node that matches has an image ${wanted}`, {
        hint: 'run `slicenet find` to see which images nodes have; build one on a node with `slicenet image build`'
      })
    }
    if (image === undefined || withImage.length < Math.max(1, minimum)) {
      const without = adverts.filter((advert) => !withImage.includes(advert))
      const nodes = [
        ...mismatches.map(({ node, name, failed }) => ({ node, name, failed: [...failed] })),
        ...without.map(({ issuer, name }) => ({
          node: issuer,
          name,
          failed: [`image ${wanted} (it has none)`]
        }))
      ]
      const message =
        withImage.length === 0
          ? `none of ${nodes.length} nodes matches`
          : `${withImage.length} nodes match where ${minimum} of ${count} members are needed`
      throw new SlicenetError('NO_MATCH', message, { details: { nodes } })
    }
    return { nodes: withImage, image }
  }

  /** Gets tickets for `count` more members and writes them down with the demands that will redeem them. */
  async #hold(
    record: SliceRecord,
    count: number,
    failed: FailedPairs,
    options: ProgressOptions
  ): Promise<number> {
    const began = this.#components.clock.monotonic()
    const { broker, book } = this.#components
    const { description } = record
    const { name, resources, ports, rights, leaseMs } = description
    const { nodes } = await this.#find({ ...description, minimum: 0 }, options)
    const taken = new Set(current(record).map(({ node }) => node))
    const holdings = await broker.getTickets(
      {
        slice: name,
        count,
        request: { resources, ports, rights, durationMs: leaseMs },
        nodes: nodes.filter(({ issuer }) => !taken.has(issuer)),
        failed,
        granted: new Map(
          [...Map.groupBy(current(record), ({ agent }) => agent)].map(([agent, of]) => [agent, of.length])
        )
      },
      options.signal === undefined ? {} : { signal: options.signal }
    )
    const agentNames = new Map(broker.agents().map((advert) => [advert.issuer, advert.name]))
    const nodeNames = new Map(nodes.map((advert) => [advert.issuer, advert.name]))
    await book.putMembers(
      name,
      holdings.map((holding) => this.#member(holding, record.image, nodeNames, agentNames))
    )
    const by = new Set(holdings.map(({ agent }) => agent)).size
    await this.#report('tickets', `${holdings.length} tickets from ${by} agents`, began, options)
    return holdings.length
  }

  #member(
    { node, agent, chain, ticket }: Holding,
    image: string,
    nodeNames: ReadonlyMap<string, string>,
    agentNames: ReadonlyMap<string, string>
  ): MemberRecord {
    const { key, clock, random } = this.#components
    const now = clock.now()
    const redeem = redeemObject.sign(
      {
        issuer: key.principal,
        // The node's clock may be behind or ahead of this one.
        notBefore: now - LIMITS.holdMsMax,
        notAfter: now + 2 * LIMITS.holdMsMax,
        seq: now,
        ticket: ticket.id,
        node,
        nonce: random.bytes(16),
        image,
        keys: []
      },
      key
    )
    return {
      node,
      nodeName: nodeNames.get(node) ?? node,
      agent,
      agentName: agentNames.get(agent) ?? agent,
      chain,
      ticket,
      redeem: redeem.bytes,
      state: 'wanted'
    }
  }

  async #redeem(name: string, failed: FailedPairs, options: ProgressOptions): Promise<void> {
    const began = this.#components.clock.monotonic()
    const { book, broker, calls, logger } = this.#components
    const wanted = current(this.#slice(name)).filter(({ state }) => state === 'wanted')
    if (wanted.length === 0) return
    const refused: MemberRecord[] = []
    await Promise.all(
      wanted.map(async (member) => {
        try {
          const lease = await calls.redeem(member, options.signal)
          await book.putMembers(name, [{ ...member, lease, state: 'leased' }])
        } catch (thrown) {
          options.signal?.throwIfAborted()
          const error = asSlicenetError(thrown)
          logger.info('a ticket was not redeemed', { slice: name, node: member.node, error })
          failed.addNode(member.node, error)
          if (isUncertain(error)) await book.putMembers(name, [{ ...member, state: 'dropping' }])
          else {
            refused.push(member)
            await book.removeMember(name, member)
          }
        }
      })
    )
    await broker.release(refused)
    const leases = current(this.#slice(name)).length
    await this.#report('redeem', `${leases} leases`, began, options)
  }

  /** Every member learns where the others are, so programs are launched only when all leases are known. */
  async #launch(
    record: SliceRecord,
    members: readonly MemberRecord[],
    options: ProgressOptions
  ): Promise<void> {
    const { calls, clock } = this.#components
    const { files, program } = record.description
    if (files.length > 0) {
      const began = clock.monotonic()
      await Promise.all(members.map((member) => calls.upload(member, files, options.signal)))
      await this.#report('upload', `${files.length} files to ${members.length} members`, began, options)
    }
    if (program === undefined) return
    const began = clock.monotonic()
    const env = { SLICENET_MEMBERS: membersLine(members), ...program.env }
    await Promise.all(
      members.map(async (member) => {
        try {
          await calls.launch(member, { ...program, env }, options.signal)
        } catch (error) {
          // A launch before a crash: the program runs.
          if (!(error instanceof SlicenetError && error.code === 'BUSY')) throw error
        }
      })
    )
    await this.#report('launch', `${program.argv[0]} runs on ${members.length} members`, began, options)
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

/** Members that are held or about to be. */
function current(record: SliceRecord): MemberRecord[] {
  return [...record.members.values()].filter(({ state }) => state !== 'dropping')
}

/** An image by content id, or the id that most of the nodes give to a name. */
function imageId(found: readonly FoundNode[], wanted: string): string | undefined {
  const ids = found.flatMap(({ advert }) => {
    const { images } = advert.body
    const id = wanted.startsWith('sha256:')
      ? Object.values(images).find((known) => known === wanted)
      : images[wanted]
    return id === undefined ? [] : [id]
  })
  const counts = [...Map.groupBy(ids, (id) => id)].sort(
    (a, b) => b[1].length - a[1].length || (a[0] < b[0] ? -1 : 1)
  )
  return counts[0]?.[0]
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

/** The error of a slice that stayed below its minimum: what was refused last says why. */
function shortfall({ description }: SliceRecord, got: number, failed: FailedPairs): SlicenetError {
  const message = `${got} of ${description.count} members could be had, ${description.minimum} are needed`
  const reason = failed.last
  if (reason === undefined) {
    return new SlicenetError('NO_MATCH', `${message}: no agent offers enough on more nodes`, {
      hint: 'ask for less, or run `slicenet find` to see what is free'
    })
  }
  return new SlicenetError(reason.code, `${message}; ${reason.message}`, { cause: reason })
}

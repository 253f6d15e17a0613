/**
 * What a service manager knows of its slices, in memory and in the store (paper §4.2.4): description, files, tickets
 * and leases, written before they are acted on, so that a crash half-way is resumed and nothing is held unknowingly.
 */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { uploadedFileSchema } from '../protocol/node-protocol.ts'
import type { Store } from '../store/store.ts'
import { leaseObject, type Lease } from '../ticket/lease.ts'
import { principalSchema } from '../ticket/principal.ts'
import { imageIdSchema } from '../ticket/resource-schema.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { timeSchema } from '../ticket/signed-object.ts'
import { ticketObject, type Ticket } from '../ticket/ticket.ts'
import { byteString, cborCodec } from '../wire/codec.ts'
import { sliceDescriptionSchema, sliceStateSchema, type SliceDescription } from './slice.ts'

const objectBytes = byteString(1, LIMITS.objectBytesMax)
const VALUE_LIMITS = { bytesMax: 512 * 1024, depthMax: 12 }

/** `wanted`: a ticket is in hand. `leased`: a lease is. `dropping`: whatever is held is to be given up. */
const memberStateSchema = v.picklist(['wanted', 'leased', 'dropping'])

const storedRenewalSchema = v.strictObject({ chain: v.array(objectBytes), redeem: objectBytes })

const storedMemberSchema = v.strictObject({
  node: principalSchema,
  nodeName: v.string(),
  agent: principalSchema,
  agentName: v.string(),
  chain: v.array(objectBytes),
  redeem: objectBytes,
  lease: v.exactOptional(objectBytes),
  renewal: v.exactOptional(storedRenewalSchema),
  state: memberStateSchema
})
const memberCodec = cborCodec(storedMemberSchema, VALUE_LIMITS)

const storedSliceSchema = v.strictObject({
  description: v.omit(sliceDescriptionSchema, ['files']),
  state: sliceStateSchema,
  image: imageIdSchema,
  createdAt: timeSchema
})
const sliceCodec = cborCodec(storedSliceSchema, VALUE_LIMITS)
const fileCodec = cborCodec(uploadedFileSchema, VALUE_LIMITS)

/** A ticket in hand and the demand that makes use of it. */
export interface Claim {
  /** Envelopes: the node's delegation, then the tickets. */
  readonly chain: readonly Uint8Array[]
  readonly ticket: Signed<Ticket>
  /** Envelope of the demand; sent again as it is, so that a retry gets the same lease. */
  readonly redeem: Uint8Array
}

export interface MemberRecord extends Claim {
  readonly node: string
  readonly nodeName: string
  readonly agent: string
  readonly agentName: string
  readonly lease?: Signed<Lease>
  /** For the next term of the lease; whether its node took it is not known yet. */
  readonly renewal?: Claim
  readonly state: v.InferOutput<typeof memberStateSchema>
}

export interface SliceRecord {
  readonly description: SliceDescription
  readonly state: v.InferOutput<typeof sliceStateSchema>
  readonly image: string
  /** UTC ms. */
  readonly createdAt: number
  /** By ticket: a node that was given up may be tried again with another ticket. */
  readonly members: ReadonlyMap<string, MemberRecord>
}

const SLICES = 'slices'
const MEMBERS = 'slice-members'
const FILES = 'slice-files'
/** A member is a chain of signed objects; a thousand of them are more than one commit takes. */
const MEMBERS_PER_COMMIT = 50

export class SliceBook {
  readonly #store: Store
  readonly #slices = new Map<string, SliceRecord>()
  readonly #listeners = new Set<(name: string) => void>()

  private constructor(store: Store) {
    this.#store = store
  }

  static async open(store: Store): Promise<SliceBook> {
    const book = new SliceBook(store)
    const files = new Map<string, SliceDescription['files'][number][]>()
    for await (const [key, bytes] of store.iterate(FILES)) {
      const name = sliceOf(key)
      files.set(name, [...(files.get(name) ?? []), fileCodec.decode(bytes)])
    }
    const members = new Map<string, Map<string, MemberRecord>>()
    for await (const [key, bytes] of store.iterate(MEMBERS)) {
      const member = openMember(bytes)
      const name = sliceOf(key)
      members.set(name, (members.get(name) ?? new Map<string, MemberRecord>()).set(member.ticket.id, member))
    }
    for await (const [name, bytes] of store.iterate(SLICES)) {
      const { description, ...rest } = sliceCodec.decode(bytes)
      const record = { ...rest, description: { ...description, files: files.get(name) ?? [] } }
      book.#slices.set(name, { ...record, members: members.get(name) ?? new Map() })
    }
    return book
  }

  get(name: string): SliceRecord | undefined {
    return this.#slices.get(name)
  }

  all(): SliceRecord[] {
    return [...this.#slices.values()]
  }

  /** Calls the listener with the name of each slice of which something else is known now, until the function given back is called. */
  on(_event: 'change', listener: (name: string) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async add(record: SliceRecord): Promise<void> {
    const { name, files } = record.description
    this.#slices.set(name, record)
    try {
      await this.#store.commit([
        { table: SLICES, key: name, value: encodeSlice(record) },
        ...files.map((file) => ({ table: FILES, key: `${name}${file.path}`, value: fileCodec.encode(file) }))
      ])
    } catch (error) {
      this.#slices.delete(name)
      throw error
    }
    this.#changed(name)
  }

  async setState(name: string, state: SliceRecord['state']): Promise<void> {
    const record = { ...this.#slice(name), state }
    await this.#store.commit([{ table: SLICES, key: name, value: encodeSlice(record) }])
    this.#set(name, { ...this.#slice(name), state })
  }

  /** In several commits when they are many; each member by itself is put whole or not at all. */
  async putMembers(name: string, changed: readonly MemberRecord[]): Promise<void> {
    for (let at = 0; at < changed.length; at += MEMBERS_PER_COMMIT) {
      const some = changed.slice(at, at + MEMBERS_PER_COMMIT)
      await this.#store.commit(
        some.map((member) => ({
          table: MEMBERS,
          key: `${name}/${member.ticket.id}`,
          value: encodeMember(member)
        }))
      )
      const members = new Map(this.#slice(name).members)
      for (const member of some) members.set(member.ticket.id, member)
      this.#set(name, { ...this.#slice(name), members })
    }
  }

  /** Puts a member in the place of another, all at once. */
  async replaceMember(name: string, before: MemberRecord, after: MemberRecord): Promise<void> {
    await this.#store.commit([
      { table: MEMBERS, key: `${name}/${before.ticket.id}`, value: null },
      { table: MEMBERS, key: `${name}/${after.ticket.id}`, value: encodeMember(after) }
    ])
    const members = new Map(this.#slice(name).members)
    members.delete(before.ticket.id)
    this.#set(name, { ...this.#slice(name), members: members.set(after.ticket.id, after) })
  }

  async removeMember(name: string, member: MemberRecord): Promise<void> {
    await this.#store.commit([{ table: MEMBERS, key: `${name}/${member.ticket.id}`, value: null }])
    const members = new Map(this.#slice(name).members)
    members.delete(member.ticket.id)
    this.#set(name, { ...this.#slice(name), members })
  }

  async remove(name: string): Promise<void> {
    const { description, members } = this.#slice(name)
    await this.#store.commit([
      { table: SLICES, key: name, value: null },
      ...description.files.map(({ path }) => ({ table: FILES, key: `${name}${path}`, value: null })),
      ...[...members.keys()].map((ticket) => ({ table: MEMBERS, key: `${name}/${ticket}`, value: null }))
    ])
    this.#slices.delete(name)
    this.#changed(name)
  }

  #set(name: string, record: SliceRecord): void {
    this.#slices.set(name, record)
    this.#changed(name)
  }

  #changed(name: string): void {
    for (const listener of this.#listeners) listener(name)
  }

  #slice(name: string): SliceRecord {
    const record = this.#slices.get(name)
    if (record === undefined) throw new TypeError(`no slice ${name}`)
    return record
  }
}

/** Keys are a slice's name, which has no slash, and what follows. */
function sliceOf(key: string): string {
  return key.slice(0, key.indexOf('/'))
}

function encodeSlice({ description, state, image, createdAt }: SliceRecord): Uint8Array {
  const { files: _kept, ...rest } = description
  return sliceCodec.encode({ description: rest, state, image, createdAt })
}

function encodeMember({ ticket: _inChain, chain, lease, renewal, ...rest }: MemberRecord): Uint8Array {
  return memberCodec.encode({
    ...rest,
    chain: [...chain],
    ...(lease === undefined ? {} : { lease: lease.bytes }),
    ...(renewal === undefined ? {} : { renewal: { chain: [...renewal.chain], redeem: renewal.redeem } })
  })
}

function openMember(bytes: Uint8Array): MemberRecord {
  const { lease, renewal, ...rest } = memberCodec.decode(bytes)
  return {
    ...rest,
    ...openClaim(rest),
    ...(lease === undefined ? {} : { lease: leaseObject.open(lease) }),
    ...(renewal === undefined ? {} : { renewal: openClaim(renewal) })
  }
}

function openClaim({ chain, redeem }: v.InferOutput<typeof storedRenewalSchema>): Claim {
  const last = chain.at(-1)
  if (last === undefined) throw new TypeError('a chain ends in a ticket')
  return { chain, redeem, ticket: ticketObject.open(last) }
}

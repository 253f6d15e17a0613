/**
 * Adverts by exchange: peers compare what they have, page by page, and fetch what they lack, when they meet and now
 * and then. So a peer that was away, or just started, knows what gossip told before.
 */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Caller, Handlers } from '../protocol/method.ts'
import { ADVERTS_PER_PUSH, type directoryProtocol } from '../protocol/directory-protocol.ts'
import type { Advertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import { mattersTo, type Interests } from './interests.ts'
import { keyOfAdvert, type AdvertTable, type DirectoryEntry } from './advert-table.ts'

type DirectoryMethods = (typeof directoryProtocol)['methods']
export type DirectoryCaller = Caller<DirectoryMethods>
export type DirectoryHandlers = Handlers<DirectoryMethods>

/** A peer that gathers nothing and has no more than this has its own adverts only. */
const FEW_ADVERTS = 8

export interface PullComponents {
  readonly table: AdvertTable
  /** What this peer gathers now. */
  readonly interests: () => Interests
}

/** What other peers may ask of this one's table. */
export function advertHandlers(
  { table, interests }: PullComponents,
  init: { readonly collects: boolean }
): Pick<DirectoryHandlers, 'about' | 'pull' | 'publish'> {
  return {
    // oxlint-disable-next-line typescript/require-await -- handlers are asynchronous.
    about: async () => ({ collects: init.collects, adverts: table.held().length, ...told(interests()) }),
    pull: async ({ after, through, digest, topics }, call) => {
      const theirs = new Map(digest)
      const page = sorted(table, mattersTo(call.principal, topics)).filter(
        ([key]) => key > after && (through === null || key <= through)
      )
      let sent = 0
      let covered: string | null = null
      for (const [key, { advert }] of page) {
        const known = theirs.get(key)
        if (known !== undefined && known >= advert.body.seq) continue
        await call.emit({ advert: advert.bytes })
        sent += 1
        if (sent === LIMITS.advertsPerMessageMax) {
          covered = key
          break
        }
      }
      const end = covered
      const wants = digest.filter(
        ([key, seq]) => init.collects && (end === null || key <= end) && table.lacks(key, seq)
      )
      return { through: covered, wants: wants.map(([key]) => key) }
    },
    // oxlint-disable-next-line typescript/require-await -- handlers are asynchronous.
    publish: async ({ adverts }, call) => {
      if (!init.collects) throw new SlicenetError('DENIED', 'this peer does not collect adverts')
      let accepted = 0
      for (const bytes of adverts) if (take(table, bytes, call.principal)) accepted += 1
      return { accepted }
    }
  }
}

/** Keeps what a peer handed over; `direct` only for what it says of itself. */
function take(table: AdvertTable, bytes: Uint8Array, from: Principal | undefined): boolean {
  return table.offer(bytes, ({ body }) => (body.issuer === from ? 'direct' : 'pull')).verdict === 'new'
}

function told(topics: Interests): { readonly topics?: string[] } {
  return topics === undefined ? {} : { topics: [...topics] }
}

function sorted(table: AdvertTable, matters: (advert: Advertisement) => boolean): [string, DirectoryEntry][] {
  return table
    .held()
    .filter(({ advert }) => matters(advert.body))
    .map((entry): [string, DirectoryEntry] => [keyOfAdvert(entry.advert), entry])
    .sort(([a], [b]) => (a < b ? -1 : 1))
}

/**
 * Fetches what the other peer has and this one lacks, and hands it what it wants of ours; tells on the way whether the
 * other gathers adverts. Gives the number of
 * adverts that were news here. Throws what calls throw, and `PROTOCOL_ERROR` when the other goes in circles.
 */
export async function pullFrom(
  { table, interests, onCollector }: PullComponents & { readonly onCollector?: (collects: boolean) => void },
  call: DirectoryCaller,
  from: Principal,
  options: { signal: AbortSignal }
): Promise<number> {
  const about = await call('about', {}, options)
  onCollector?.(about.collects)
  // What the other does not gather it can neither have nor want.
  const matters = mattersTo(from, about.topics)
  const hasOthers = about.collects || about.adverts > FEW_ADVERTS
  const mine = sorted(table, (advert) => (hasOthers ? matters(advert) : advert.issuer === from))
  const topics = told(interests())
  const wants: string[] = []
  let news = 0
  let after = ''
  for (let pages = 0; pages < LIMITS.digestPagesMax; pages++) {
    const rest = mine.filter(([key]) => key > after)
    const page = rest.slice(0, LIMITS.digestEntriesMax)
    const through = rest.length > page.length ? (page.at(-1)?.[0] ?? null) : null
    const answer = await call(
      'pull',
      { after, through, digest: page.map(([key, { advert }]) => [key, advert.body.seq]), ...topics },
      {
        ...options,
        onItem: ({ advert }) => {
          if (take(table, advert, from)) news += 1
        }
      }
    )
    wants.push(...answer.wants)
    const next = answer.through ?? through
    if (next === null) {
      await push(call, wants, new Map(mine), options)
      return news
    }
    if (next <= after) break
    after = next
  }
  throw new SlicenetError('PROTOCOL_ERROR', `${from} has no end of adverts`)
}

async function push(
  call: DirectoryCaller,
  wants: readonly string[],
  mine: ReadonlyMap<string, DirectoryEntry>,
  options: { signal: AbortSignal }
): Promise<void> {
  const adverts = [...new Set(wants)].flatMap((key) => mine.get(key)?.advert.bytes ?? [])
  for (let at = 0; at < adverts.length; at += ADVERTS_PER_PUSH) {
    await call('publish', { adverts: adverts.slice(at, at + ADVERTS_PER_PUSH) }, options)
  }
}

/** What an agent says it holds to who asks with a query. */
import test from 'ava'
import { Offering } from '../../src/agent/offering.ts'
import { Ratings } from '../../src/agent/ratings.ts'
import { delegationSource } from '../../src/agent/source.ts'
import { TicketBook } from '../../src/agent/ticket-book.ts'
import type { Clock } from '../../src/base/clock.ts'
import { LIMITS } from '../../src/base/limits.ts'
import type { Offer } from '../../src/protocol/agent-protocol.ts'
import { advertisementObject } from '../../src/ticket/advertisement.ts'
import { nodeAdvert } from '../broker/adverts.ts'
import { NOW, delegate, makeKey } from '../ticket/fixtures.ts'
import { agentLab, handOver } from './agent-lab.ts'

const agent = makeKey()
const holder = makeKey()

/** Adverts of nodes in two regions by turns. */
function nodes(count: number) {
  return Array.from({ length: count }, (_one, index) => {
    const key = makeKey()
    const region = index % 2 === 0 ? 'eu' : 'us'
    return { key, advert: nodeAdvert(key, { name: `n${index}`, attributes: { region } }) }
  })
}

/** Time passes with every look at the clock, and while somebody sleeps. */
class BusyClock implements Clock {
  readonly slept: number[] = []
  #monotonic = 0
  readonly #msPerLook: number

  constructor(msPerLook: number) {
    this.#msPerLook = msPerLook
  }

  now(): number {
    return NOW
  }

  monotonic(): number {
    return (this.#monotonic += this.#msPerLook)
  }

  async sleep(ms: number): Promise<void> {
    await Promise.resolve()
    this.slept.push(ms)
    this.#monotonic += ms
  }

  timeout(ms: number): AbortSignal {
    return AbortSignal.timeout(ms)
  }
}

interface Market {
  readonly clock: BusyClock
  readonly ask: (query: string | undefined, emit?: (offer: Offer) => Promise<void>) => Promise<string[]>
}

function market(count: number, msPerLook: number): Market {
  const clock = new BusyClock(msPerLook)
  const all = nodes(count)
  const book = new TicketBook()
  for (const { key } of all) book.take(delegationSource(delegate(key, agent)))
  const adverts = new Map(all.map(({ key, advert }) => [key.principal, advert]))
  const ratings = new Ratings({ isProven: () => false })
  const offering = new Offering({
    clock,
    book,
    ratings,
    advertOf: (node) => adverts.get(node),
    isProven: () => false
  })
  return {
    clock,
    async ask(query, emit) {
      const names: string[] = []
      const call = {
        principal: holder.principal,
        signal: new AbortController().signal,
        input: (async function* () {})(),
        async emit(offer: Offer) {
          await emit?.(offer)
          names.push(advertisementObject.open(offer.advert).body.name)
        }
      }
      await offering.offer(query, call)
      return names
    }
  }
}

test('an agent offers the nodes that match the query and no others, and all without one', async (t) => {
  const all = nodes(4)
  const adverts = new Map(all.map(({ key, advert }) => [key.principal, advert]))
  const lab = await agentLab({}, { advertOf: (node) => adverts.get(node) })
  for (const { key } of all) await handOver(lab, key)
  const asked = async (query?: string): Promise<string[]> => {
    const names: string[] = []
    const onItem = ({ advert }: Offer): void => void names.push(advertisementObject.open(advert).body.name)
    await lab.as(holder.principal)('getAds', query === undefined ? {} : { query }, { onItem })
    return names
  }
  t.deepEqual(await asked(), ['n0', 'n1', 'n2', 'n3'])
  t.deepEqual(await asked('node.region == "us"'), ['n1', 'n3'])
  t.deepEqual(await asked('node.region == "us" && node.rack > 1'), [])
  await t.throwsAsync(asked('node.region =='), { code: 'QUERY_INVALID' })
  await t.throwsAsync(asked('node.name.matches("(a+)+")'), { code: 'QUERY_INVALID' })
})

test('queries have a part of the time only: after each stretch there is a pause that is longer', async (t) => {
  const { clock, ask } = market(100, 0.5)
  const began = clock.monotonic()
  t.is((await ask('node.region == "eu"')).length, 50)
  const slept = clock.slept.reduce((sum, ms) => sum + ms, 0)
  const worked = clock.monotonic() - began - slept
  t.true(clock.slept.length >= 5)
  t.true(slept > 1.5 * worked, `${slept} ms of pauses, ${worked} ms of work`)
  clock.slept.length = 0
  t.is((await ask(undefined)).length, 100)
  t.deepEqual(clock.slept, [], 'without a query there is nothing to evaluate')
})

test('a query that takes too long is given up, and the next one is answered', async (t) => {
  const { ask } = market(100, 10)
  await t.throwsAsync(ask('node.region == "eu"'), { code: 'BUSY', message: /too long over 100 nodes/ })
  const quick = market(100, 0.01)
  t.is((await quick.ask('node.region == "eu"')).length, 50)
})

test('so many queries are answered at once, and another when one of them is over', async (t) => {
  const { ask } = market(2, 0)
  const gate = Promise.withResolvers<void>()
  const asked = Array.from({ length: LIMITS.agentQueriesAtOnceMax }, () => ask('true', () => gate.promise))
  await t.throwsAsync(ask('true'), { code: 'BUSY' })
  t.is((await ask(undefined)).length, 2, 'who asks without a query is answered')
  gate.resolve()
  t.deepEqual(
    (await Promise.all(asked)).map(({ length }) => length),
    asked.map(() => 2)
  )
  t.is((await ask('true')).length, 2)
})

test('a caller that is gone ends its query', async (t) => {
  const { ask } = market(2, 0)
  const gone = new Error('the caller is gone')
  await t.throwsAsync(
    ask('true', async () => Promise.reject(gone)),
    { is: gone }
  )
  const rounds = Array.from({ length: LIMITS.agentQueriesAtOnceMax }, async () => ask('true'))
  t.is((await Promise.all(rounds)).length, LIMITS.agentQueriesAtOnceMax)
})

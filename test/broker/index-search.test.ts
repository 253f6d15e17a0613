import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { IndexSearch } from '../../src/broker/index-search.ts'
import type { agentProtocol, Offer } from '../../src/protocol/agent-protocol.ts'
import type { Caller } from '../../src/protocol/method.ts'
import { compileQuery } from '../../src/query/query.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { NOW, amounts, makeKey } from '../ticket/fixtures.ts'
import { nodeAdvert } from './adverts.ts'

type AgentCaller = Caller<typeof agentProtocol.methods>

const query = compileQuery('node.region == "eu"')
const { bytes: advert } = nodeAdvert(makeKey())
const offer: Offer = { advert, available: amounts(1), until: NOW, reliability: 500 }

/** Calls of agents, each of which sends so many offers, or never answers. */
function search(agents: Readonly<Record<string, number | 'silent'>>) {
  const clock = new ManualClock()
  const learned: Uint8Array[] = []
  const asked: string[] = []
  const lookups: unknown[] = []
  const callAgent = (agent: string): AgentCaller =>
    (async (
      _method: string,
      _params: unknown,
      options: { signal: AbortSignal; onItem(item: Offer): void }
    ) => {
      asked.push(agent)
      const count = agents[agent] ?? 0
      if (count === 'silent') {
        options.signal.throwIfAborted()
        await new Promise((_resolve, reject) => {
          options.signal.addEventListener('abort', () => reject(options.signal.reason as Error))
        })
      }
      for (let sent = 0; sent < Number(count); sent++) {
        options.signal.throwIfAborted()
        options.onItem(offer)
      }
      return { ratings: [] }
    }) as unknown as AgentCaller
  const directory = {
    findIndexed: async (demands: readonly (readonly string[])[]) => {
      lookups.push(demands)
      return Object.keys(agents)
    },
    learn: (bytes: Uint8Array) => void learned.push(bytes)
  }
  const index = new IndexSearch({ directory, callAgent, clock, logger: silentLogger }, { callMs: 200 })
  return { index, clock, learned, asked, lookups }
}

test('agents that the index names are asked for what matches', async (t) => {
  const { index, learned, lookups } = search({ one: 2, other: 1 })
  t.true(await index.search(query))
  t.deepEqual(lookups, [[['region=eu']]])
  t.is(learned.length, 3)
})

test('the same is not looked up again at once, and a query without demands not at all', async (t) => {
  const { index, clock, lookups } = search({ one: 1 })
  await index.search(query)
  t.false(await index.search(query))
  t.false(await index.search(compileQuery('node.name.startsWith("n")')))
  t.is(lookups.length, 1)
  await clock.advance(61_000)
  t.true(await index.search(query))
  t.is(lookups.length, 2)
})

test('an agent that never answers costs its time and hides nobody; one that never ends is broken off', async (t) => {
  // What aborts the call keeps no process alive.
  const alive = setInterval(() => {}, 50)
  t.teardown(() => clearInterval(alive))
  const { index, clock, learned } = search({
    silent: 'silent',
    endless: LIMITS.indexedAdvertsMax * 3,
    good: 1
  })
  const done = index.search(query)
  await clock.advance(1000)
  t.true(await done)
  t.is(learned.length, LIMITS.indexedAdvertsMax + 1)
})

test('whoever waits can give up', async (t) => {
  const { index } = search({ silent: 'silent' })
  const controller = new AbortController()
  const done = index.search(query, { signal: controller.signal })
  controller.abort(new Error('enough'))
  await t.throwsAsync(done, { message: 'enough' })
})

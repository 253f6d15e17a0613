import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { listening as listeningPart } from '../../src/daemon/listening.ts'
import type { DirectoryEntry } from '../../src/peer/advert-table.ts'
import { AGENTS_TOPIC, organisationTopic, regionTopic } from '../../src/peer/topics.ts'
import type { AgentAdvertisement } from '../../src/ticket/advertisement.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { agentAdvert, newKey } from '../peer/fixtures/network.ts'

/** A directory with room for `room` topics, and what it is told. */
function directory(room: number) {
  const topics = new Set<string>()
  const listeners = {
    update: new Set<(entry: DirectoryEntry) => void>(),
    expire: new Set<(entry: DirectoryEntry) => void>()
  }
  return {
    topics,
    tell: (
      event: keyof typeof listeners,
      key: ReturnType<typeof newKey>,
      fields: Partial<AgentAdvertisement>
    ): void => {
      const entry: DirectoryEntry = { advert: agentAdvert(key, fields), receivedAt: 0, via: 'gossip' }
      for (const listener of listeners[event]) listener(entry)
    },
    subscribe(topic: string): boolean {
      if (topics.size >= room && !topics.has(topic)) return false
      topics.add(topic)
      return true
    },
    unsubscribe: (topic: string) => void topics.delete(topic),
    on(event: keyof typeof listeners, listener: (entry: DirectoryEntry) => void) {
      listeners[event].add(listener)
      return () => listeners[event].delete(listener)
    },
    findAgents: async () => ['somebody']
  }
}

async function listening(room: number) {
  const one = directory(room)
  const part = listeningPart(
    { directory: one, clock: new ManualClock(), logger: silentLogger },
    { everywhere: true }
  )
  await part.start()
  return { ...one, part }
}

test('where agents serve nodes is listened to for as long as one of them says so', async (t) => {
  const { topics, tell, part } = await listening(100)
  const [one, other] = [newKey(), newKey()]
  tell('update', one, { regions: ['eu', 'us'], organisations: ['a'] })
  tell('update', other, { regions: ['eu'] })
  t.deepEqual(topics, new Set([AGENTS_TOPIC, regionTopic('eu'), regionTopic('us'), organisationTopic('a')]))
  tell('update', one, { regions: ['us'] })
  t.deepEqual(topics, new Set([AGENTS_TOPIC, regionTopic('eu'), regionTopic('us')]))
  tell('expire', other, {})
  t.deepEqual(topics, new Set([AGENTS_TOPIC, regionTopic('us')]))
  await part.stop()
  tell('update', other, { regions: ['far'] })
  t.false(topics.has(regionTopic('far')))
})

test('an agent that names very many places has a few of them, and when all are taken nothing breaks', async (t) => {
  const { topics, tell, part } = await listening(20)
  const many = Array.from({ length: 64 }, (_one, index) => `r${index}`)
  tell('update', newKey(), { regions: many, organisations: many })
  t.is(topics.size, 1 + 2 * LIMITS.topicsPerAgentMax)
  const greedy = newKey()
  t.notThrows(() => tell('update', greedy, { regions: many.map((name) => `x${name}`) }))
  t.is(topics.size, 20)
  // What it takes it gives back.
  tell('expire', greedy, {})
  t.is(topics.size, 1 + 2 * LIMITS.topicsPerAgentMax)
  await part.stop()
})

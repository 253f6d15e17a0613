import test from 'ava'
import { LIMITS } from '../../src/base/limits.ts'
import { watchNodes, type WatchEvent } from '../../src/broker/watch.ts'
import { advertKey, AdvertTable, type DirectoryEntry } from '../../src/peer/advert-table.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { ManualClock, settle } from '../base/manual-clock.ts'
import { amounts, makeKey, NOW } from '../ticket/fixtures.ts'
import { nodeAdvert } from './adverts.ts'

const MINUTE = 60_000

/** A directory that hears what the test says, and what somebody who watches it has seen. */
function scene(init: {
  readonly query?: string
  readonly entriesMax?: number
  readonly signal?: AbortSignal
}) {
  const clock = new ManualClock()
  const table = new AdvertTable(
    { clock },
    init.entriesMax === undefined ? {} : { entriesMax: init.entriesMax }
  )
  let listeners = 0
  const directory = {
    entries: () => table.entries(),
    get: (node: string) => table.get(advertKey(node, 'node')),
    on(event: 'update' | 'expire', listener: Parameters<typeof table.on>[1]) {
      listeners += 1
      const off = table.on(event, listener)
      return () => {
        listeners -= 1
        off()
      }
    }
  }
  let seq = 1
  const say = (key: SigningKey, changes: Partial<NodeAdvertisement> = {}): void => {
    seq += 1
    const notAfter = clock.now() + MINUTE
    table.offer(nodeAdvert(key, { seq, notBefore: clock.now(), notAfter, ...changes }).bytes, 'gossip')
  }
  const events = watchNodes({ directory, clock }, init.query, init)
  return { clock, table, events, say, listeners: () => listeners }
}

const next = async (events: AsyncGenerator<WatchEvent>): Promise<string> => {
  const { value } = await events.next()
  return value === undefined ? 'end' : `${value.type} ${value.entry.advert.body.name}`
}

test('nodes that match now come first, then those that begin to', async (t) => {
  const { say, events } = scene({ query: 'node.region == "eu"' })
  say(makeKey(), { name: 'there' })
  say(makeKey(), { name: 'elsewhere', attributes: { region: 'us' } })
  t.is(await next(events), 'match there')
  const coming = next(events)
  await settle()
  say(makeKey(), { name: 'new' })
  t.is(await coming, 'match new')
})

test('a node that says something else is an update, one that only lives on is none', async (t) => {
  const { say, events, clock } = scene({ query: 'node.cpu.free > 0' })
  const key = makeKey()
  say(key)
  t.is(await next(events), 'match one')
  const coming = next(events)
  await clock.advance(MINUTE / 2)
  say(key)
  say(key, { coordinate: { vector: [1, 2, 3, 4], height: 5, error: 100 } })
  await settle()
  say(key, { free: amounts(3) })
  t.is(await coming, 'update one')
})

test('a node expires when it matches no more, when it is gone, and when its room was taken', async (t) => {
  const { say, events, clock, table } = scene({ query: 'node.region == "eu"', entriesMax: 2 })
  const [fickle, silent, pushed] = [makeKey(), makeKey(), makeKey()]
  say(fickle, { name: 'fickle' })
  t.is(await next(events), 'match fickle')
  say(fickle, { name: 'fickle', attributes: { region: 'us' } })
  t.is(await next(events), 'expire fickle')
  say(silent, { name: 'silent' })
  t.is(await next(events), 'match silent')
  await clock.advance(MINUTE)
  table.sweep()
  t.is(await next(events), 'expire silent')
  say(pushed, { name: 'pushed', notAfter: clock.now() + 10 })
  t.is(await next(events), 'match pushed')
  say(makeKey(), { name: 'third' })
  say(makeKey(), { name: 'fourth' })
  t.is(await next(events), 'match third')
  t.is(await next(events), 'match fourth')
  const coming = next(events)
  await clock.advance(5000)
  t.is(await coming, 'expire pushed')
})

test('whoever is slow sees each node once, as it is now', async (t) => {
  const { say, events, clock, table } = scene({})
  const [one, two] = [makeKey(), makeKey()]
  say(one, { name: 'one' })
  t.is(await next(events), 'match one')
  say(two, { name: 'two' })
  for (const free of [9, 8, 7]) say(one, { name: 'one', free: amounts(free) })
  say(makeKey(), { name: 'short', notAfter: clock.now() + 1 })
  await clock.advance(10)
  table.sweep()
  t.is(await next(events), 'match two')
  const { value } = await events.next()
  t.is(value?.type, 'update')
  t.deepEqual(value?.entry.advert.body.free, amounts(7))
  const nothing = events.next()
  await settle()
  t.is(await Promise.race([nothing, Promise.resolve('nothing more')]), 'nothing more')
})

test('a flood of keys that nobody takes fills no memory, and what is there afterwards is seen', async (t) => {
  const heard = new Set<(entry: DirectoryEntry) => void>()
  let there: DirectoryEntry[] = []
  const entryOf = (key: SigningKey): DirectoryEntry => ({
    advert: nodeAdvert(key, { name: 'real' }),
    via: 'gossip',
    receivedAt: NOW
  })
  const directory = {
    entries: () => there,
    get: (node: string) => there.find(({ advert }) => advert.body.issuer === node),
    on(event: string, listener: (entry: DirectoryEntry) => void) {
      if (event === 'update') heard.add(listener)
      return () => heard.delete(listener)
    }
  }
  const flooded = entryOf(makeKey())
  let looks = 0
  const counted = { ...directory, get: (node: string) => (looks++, directory.get(node)) }
  const events = watchNodes({ directory: counted, clock: new ManualClock() }, undefined)
  const coming = events.next()
  await settle()
  for (let made = 0; made <= LIMITS.directoryEntriesMax + 1000; made++) {
    const advert = { ...flooded.advert, body: { ...flooded.advert.body, issuer: `flood ${made}` } }
    for (const listener of heard) listener({ ...flooded, advert })
  }
  // Nothing told of this one: there was no room to remember that.
  there = [entryOf(makeKey())]
  const { value } = await coming
  t.is(value?.entry.advert.id, there[0]?.advert.id)
  t.is(looks, 1)
})

test('a query that cannot be read is refused at once', (t) => {
  t.throws(() => scene({ query: 'node.' }), { code: 'QUERY_INVALID' })
})

test('watching ends when it is left or aborted, and nothing listens on', async (t) => {
  const left = scene({})
  left.say(makeKey())
  for await (const event of left.events) {
    t.is(event.type, 'match')
    t.is(left.listeners(), 2)
    break
  }
  t.is(left.listeners(), 0)
  const controller = new AbortController()
  const aborted = scene({ signal: controller.signal })
  const waiting = aborted.events.next()
  await settle()
  controller.abort(new Error('enough'))
  await t.throwsAsync(waiting, { message: 'enough' })
  t.is(aborted.listeners(), 0)
})

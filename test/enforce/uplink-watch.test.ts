import test from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import type { Logger } from '../../src/base/log.ts'
import type { Uplink } from '../../src/enforce/network/uplink.ts'
import { UplinkWatch } from '../../src/enforce/network/uplink-watch.ts'

const UPLINK: Uplink = { device: 'up1', ifindex: 7, address: '192.0.2.7', mtu: 1500 }

interface Watched {
  readonly watch: UplinkWatch
  readonly renewed: Uplink[]
  readonly shut: Uplink[]
  readonly said: string[]
  found: Uplink | Error
  queue: 'own' | 'none' | 'foreign'
}

function watched(): Watched {
  const said: string[] = []
  const say = (message: string): void => void said.push(message)
  const logger = { debug: say, info: say, warn: say, error: say, child: () => logger } as unknown as Logger
  const renewed: Uplink[] = []
  const shut: Uplink[] = []
  const watch = new UplinkWatch({
    logger,
    name: 'up1',
    find: async () => {
      if (all.found instanceof Error) throw all.found
      return Promise.resolve(all.found)
    },
    isShaped: async () => Promise.resolve(all.queue === 'own'),
    renew: async (uplink) => {
      if (all.queue === 'foreign') throw new SlicenetError('CONFIG_INVALID', 'another program shapes up1')
      renewed.push(uplink)
      return Promise.resolve()
    },
    shut: async (uplink) => {
      shut.push(uplink)
      return Promise.resolve()
    }
  })
  const all: Watched = { watch, renewed, shut, said, found: UPLINK, queue: 'own' }
  return all
}

const missing = (): Error => new SlicenetError('CONFIG_INVALID', 'up1 is no device')

test('an uplink that never was there is told of once, and is put in place when it comes', async (t) => {
  const all = watched()
  const { watch, renewed, said } = all
  watch.miss(missing())
  all.found = missing()
  for (let second = 0; second < 3; second++) await watch.look(undefined)
  t.true(watch.isAway)
  t.is(watch.trouble, 'up1 is no device')
  t.deepEqual(said, ['an uplink is not there, or cannot be used'])
  t.deepEqual(renewed, [])
  all.found = UPLINK
  await watch.look(undefined)
  t.false(watch.isAway)
  t.deepEqual(renewed, [UPLINK])
  await watch.look(UPLINK)
  t.deepEqual(renewed, [UPLINK], 'and then left as it is')
  t.deepEqual(said.slice(1), ['an uplink has come'])
})

test('one whose queue somebody took away is put in place again, and that is said each time', async (t) => {
  const all = watched()
  const { watch, renewed, said } = all
  await watch.look(UPLINK)
  t.deepEqual(renewed, [])
  all.queue = 'none'
  await watch.look(UPLINK)
  await watch.look(UPLINK)
  t.deepEqual(renewed, [UPLINK, UPLINK])
  t.is(said.filter((line) => line.includes('took the queue')).length, 2)
})

test('nothing leaves by one that cannot be put in place again, until it can', async (t) => {
  const all = watched()
  const { watch, renewed, shut } = all
  all.queue = 'foreign'
  await watch.look(UPLINK)
  t.deepEqual([renewed, shut], [[], [UPLINK]])
  t.is(watch.trouble, 'another program shapes up1')
  all.found = missing()
  await watch.look(UPLINK)
  t.deepEqual(shut, [UPLINK], 'what is not there needs no shutting')
  Object.assign(all, { found: UPLINK, queue: 'own' })
  await watch.look(UPLINK)
  t.deepEqual(renewed, [UPLINK])
  t.false(watch.isAway)
})

test('an uplink that was away is put in place again although it looks the same', async (t) => {
  const all = watched()
  const { watch, renewed, said } = all
  await watch.look(UPLINK)
  t.deepEqual(renewed, [])
  all.found = missing()
  await watch.look(UPLINK)
  all.found = UPLINK
  await watch.look(UPLINK)
  t.deepEqual(renewed, [UPLINK])
  t.deepEqual(said, ['an uplink is not there, or cannot be used', 'an uplink is back'])
  t.is(watch.trouble, undefined)
})

/** A node whose uplink is the default route's, which moves to another device and back. */
import test from 'ava'
import { Lab } from './lab.ts'
import { FIRST_PLACE, NftInPlace } from './nft-in-place.ts'
import { until } from './until.ts'

const second = { net: '198.19.208', far: '198.19.209.9' }
const lab = new Lab({ letter: 'g', second })
let place: NftInPlace

const REFUSING = `
if [ -e ${FIRST_PLACE}/refusing ] && printf '%s' "$input" | grep -q 'delete table ip slicenet$'; then
  echo 'Error: Could not process rule: Device or resource busy' >&2
  exit 1
fi`

test.before(async () => {
  place = await NftInPlace.make(REFUSING)
  await lab.up()
  await lab.killNode()
  await lab.startNode({}, place.through)
  await lab.vserver('one', [], { egressBps: 2_000_000 })
})
test.after.always(async () => {
  await lab.down()
  await place.remove()
})

const isUsed = async (device: string): Promise<boolean> => {
  const uplinks = await lab.onNode(['nft', 'list', 'set', 'ip', 'slicenet', 'shaped_uplinks'])
  return uplinks.includes(`"${device}"`)
}
const queue = async (device: string): Promise<string> =>
  lab.onNode(['tc', 'qdisc', 'show', 'dev', device, 'root'])
const isShaped = async (device: string): Promise<boolean> => (await queue(device)).includes('htb 51ce:')
const troubles = async (): Promise<readonly string[]> => lab.ask({ op: 'troubles' })
/** The default route is by `up0` where it has one, and else by `up1`. */
const route = async (verb: 'add' | 'del'): Promise<string> =>
  lab.onNode(['ip', 'route', verb, 'default', 'via', lab.nodeAddress.replace(/\d+$/, '1'), 'dev', 'up0'])

test.serial('it is shaped where it is used, and nowhere else', async (t) => {
  t.true(await isUsed('up0'))
  await route('del')
  t.true(await until(async () => isUsed('up1')))
  t.is(await lab.guaranteed('up1', 1), '2Mbit')
  t.true(await until(async () => !(await isShaped('up0'))))
  await route('add')
  t.true(await until(async () => isUsed('up0')))
  t.is(await lab.guaranteed('up0', 1), '2Mbit')
  t.true(await until(async () => !(await isShaped('up1'))))
})

test.serial('where its rules were refused, the device it comes back from is not shaped either', async (t) => {
  await place.say('refusing')
  await route('del')
  t.true(await until(async () => isShaped('up1')))
  t.true(await until(async () => (await troubles()).length > 0))
  t.false((await isUsed('up0')) || (await isUsed('up1')), 'nothing leaves by either')
  await route('add')
  await place.unsay('refusing')
  t.true(await until(async () => (await troubles()).length === 0))
  t.true(await isUsed('up0'))
  t.is(await lab.guaranteed('up0', 1), '2Mbit')
  t.false(await isShaped('up1'))
})

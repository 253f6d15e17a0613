/** What the kernel is asked by netlink it answers one by one; only things are asked here that change nothing. */
import test from 'ava'
import { ERROR_CODES } from '../../src/base/errors.ts'
import { run } from '../../src/base/host-program.ts'
import { askKernel, deviceNumber, type NetlinkRequest } from '../../src/enforce/route-netlink.ts'

const RTM_GETLINK = 18
const RTM_DELTCLASS = 41
const LOOPBACK = 1

/** `struct ifinfomsg` and `struct tcmsg`. */
const getLink = (device: number): NetlinkRequest => ({ type: RTM_GETLINK, payload: words(0, device, 0, 0) })
const deleteClass = (device: number): NetlinkRequest => ({
  type: RTM_DELTCLASS,
  payload: words(0, device, 0x51ce_0009, 0, 0)
})

function words(...values: readonly number[]): Buffer {
  return Buffer.from(new Uint32Array(values).buffer)
}

test('each request is answered for itself, in their order, whatever came of those before', async (t) => {
  const [there, refused, gone, again] = await askKernel([
    getLink(LOOPBACK),
    deleteClass(LOOPBACK),
    deleteClass(0x7fff_ffff),
    getLink(LOOPBACK)
  ])
  t.is(there, undefined)
  t.regex(refused?.errno ?? '', /^E[A-Z]+$/)
  t.is(gone?.errno, 'ENODEV')
  t.is(again, undefined)
})

test('the kernel’s words come with a refusal where it has any', async (t) => {
  const [refused] = await askKernel([{ type: RTM_GETLINK, payload: words(0) }])
  t.is(refused?.errno, 'EINVAL')
  t.regex(refused?.message ?? '', /[a-z]+ [a-z]+/i)
})

test('as many may be asked at once as one has', async (t) => {
  const refusals = await askKernel(
    Array.from({ length: 3000 }, (_, index) => (index % 2 === 0 ? getLink(LOOPBACK) : deleteClass(LOOPBACK)))
  )
  t.is(refusals.length, 3000)
  t.true(refusals.every((refusal, index) => (refusal === undefined) === (index % 2 === 0)))
  t.deepEqual(await askKernel([]), [])
})

test('a kernel that gives no socket has refused', async (t) => {
  const source = new URL('../../src/enforce/route-netlink.ts', import.meta.url).href
  const script = `
    const { openSync } = await import('node:fs')
    const { askKernel, deviceNumber } = await import('${source}')
    const said = async () => askKernel([]).then(() => 'done', ({ code, hint, message }) => ({ code, hint, message }))
    deviceNumber('lo')
    const before = await said()
    try { for (;;) openSync('/dev/null') } catch {}
    console.log(JSON.stringify([before, await said()]))`
  const node = [process.execPath, '--input-type=module', '-e', script]
  const [before, after] = JSON.parse(await run('prlimit', ['--nofile=100:100', ...node])) as unknown[]
  t.is(before, 'done')
  t.like(after, { code: 'KERNEL_REFUSED', hint: ERROR_CODES.KERNEL_REFUSED.hint })
  t.regex((after as Error).message, /netlink socket: EMFILE$/)
})

test('a device has its number, and one that is not there has none', (t) => {
  t.is(deviceNumber('lo'), LOOPBACK)
  t.is(deviceNumber('slicenet-none'), undefined)
})

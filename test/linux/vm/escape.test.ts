/**
 * What could harm the machine that tests run on, and what its kernel lacks, is tried in a virtual machine with a stock Debian
 * kernel and cgroups v2 alone: in real vservers, where it must fail, and in a control, where it must succeed. What ends the
 * machine is tried from the same memory over and over.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import type { Told } from '../escape/lab.ts'
import { findKernel, type Kernel } from './debian-packages.ts'
import { makeGuestDisk } from './guest-disk.ts'
import { IN_CONTROL, MACHINE_ATTEMPTS, VSERVERS, type EscapeLine } from './escape-lines.ts'
import { makeInitramfs } from './initramfs.ts'
import { VirtualMachine } from './virtual-machine.ts'
import { ownDirectory } from '../own-names.ts'

const COMMAND = 'node test/linux/vm/guest/escape.js'
/** Of one machine; far more than it takes where nothing else runs. */
const DEADLINE_MS = 5 * 60_000
const isSupported = process.arch === 'x64'
const declare = isSupported ? test.serial : test.serial.skip

let directory: string
let kernel: Kernel
let machine: { readonly initramfs: string; readonly disk: string }
/** What the guest told, by attempt and place. */
const told = new Map<string, Map<string, Told>>()

test.before(async (t) => {
  t.timeout(2 * DEADLINE_MS)
  if (!isSupported) {
    t.log(`no virtual machine on ${process.arch}: what it would show is not shown`)
    return
  }
  directory = await ownDirectory('vm')
  kernel = await findKernel()
  machine = { disk: await makeGuestDisk({ directory }), initramfs: await makeInitramfs(kernel, directory) }
  const first = await start()
  try {
    await listen(first)
    await first.keep(memory())
  } catch (error) {
    t.log(await first.console())
    throw error
  } finally {
    await first.stop()
  }
})

test.after.always(async () => {
  if (directory !== undefined) await rm(directory, { recursive: true, force: true })
})

for (const { name, without, endsMachine } of MACHINE_ATTEMPTS) {
  declare(`a vserver cannot ${name}`, async (t) => {
    t.timeout(DEADLINE_MS)
    const places = told.get(name)
    for (const id of VSERVERS) t.not(places?.get(id)?.outcome ?? 'reached', 'reached', id)
    if (endsMachine === undefined) {
      const { outcome, reason } = places!.get(IN_CONTROL)!
      t.is(outcome, 'reached', `the control without ${without.join(', ')}: ${reason}`)
      return
    }
    const again = await start(memory())
    try {
      again.say(name)
      // It would say that the attempt failed.
      for await (const line of again.lines) t.fail(`the control without ${without.join(', ')}: ${line}`)
      t.is(await again.whyItEnded(), 'guest-reset')
      t.regex(await again.console(), endsMachine)
    } finally {
      await again.stop()
    }
  })
}

function memory(): string {
  return join(directory, 'memory')
}

async function start(from?: string): Promise<VirtualMachine> {
  return VirtualMachine.start({
    ...machine,
    directory,
    kernel,
    command: COMMAND,
    deadlineMs: DEADLINE_MS,
    ...(from === undefined ? {} : { from })
  })
}

/** Takes down what the guest tells until it has made all that does not end the machine. */
async function listen(guest: VirtualMachine): Promise<void> {
  for await (const text of guest.lines) {
    const line = JSON.parse(text) as EscapeLine
    if (line.kind === 'waiting') return
    const places = told.get(line.name) ?? new Map<string, Told>()
    told.set(line.name, places.set(line.where, line.told))
  }
  throw new Error('the machine ended early')
}

/** Runs test files of this repository in a virtual machine, and gives what became of each of their tests. */
import type { OciRuntimeName } from '../../../src/enforce/oci-runtime.ts'
import { fetchPackages, findKernel } from './debian-packages.ts'
import { join } from 'node:path'
import { makeGuestDisk, type GuestDiskInit } from './guest-disk.ts'
import { makeInitramfs } from './initramfs.ts'
import { VirtualMachine } from './virtual-machine.ts'

export interface GuestMachine {
  readonly hierarchies: readonly { readonly directory: string; readonly controllers: readonly string[] }[]
  /** Such as `crun 1.8.1`. */
  readonly runtime: string
}

export interface SuiteResult {
  readonly machine: GuestMachine | undefined
  readonly passed: readonly string[]
  /** Titles of tests, each with what was said of it. */
  readonly failed: readonly string[]
  readonly console: string
}

export interface SuiteInit {
  readonly directory: string
  /** The only OCI runtime of the machine. */
  readonly runtime: OciRuntimeName
  /** Without their endings, such as `test/linux/oci-enforcer.test`. They run one after the other. */
  readonly files: readonly string[]
  /** What the disk has beside what enforcement needs. */
  readonly disk?: Pick<GuestDiskInit, 'packages' | 'programs' | 'files' | 'modules'>
  readonly deadlineMs: number
}

export async function runSuite(init: SuiteInit): Promise<SuiteResult> {
  const { directory } = init
  const kernel = await findKernel()
  const disk = await makeGuestDisk({
    directory,
    ...init.disk,
    packages: ['ava', ...(init.disk?.packages ?? [])],
    ...(await partsOf(init.runtime))
  })
  const initramfs = await makeInitramfs(kernel, directory)
  const command = ['node test/linux/vm/guest/suite.js', ...init.files.map((file) => `${file}.js`)].join(' ')
  const machine = await VirtualMachine.start({
    directory,
    kernel,
    initramfs,
    disk,
    command,
    deadlineMs: init.deadlineMs
  })
  try {
    const lines: string[] = []
    for await (const line of machine.lines) lines.push(line)
    return { ...readTap(lines), console: await machine.console() }
  } finally {
    await machine.stop()
  }
}

/** This machine need not have the runtime. */
async function partsOf(runtime: OciRuntimeName): Promise<Partial<Parameters<typeof makeGuestDisk>[0]>> {
  if (runtime === 'runc') return {}
  const root = await fetchPackages('crun', ['libyajl2'])
  return {
    runtimes: { crun: join(root, 'usr/bin/crun') },
    libraries: [join(root, 'usr/lib/x86_64-linux-gnu')]
  }
}

function readTap(lines: readonly string[]): Omit<SuiteResult, 'console'> {
  const passed: string[] = []
  const failed: string[] = []
  let machine: GuestMachine | undefined
  let isOfFailure = false
  for (const line of lines) {
    const [, not, title] = /^(not )?ok \d+ - (.*)$/.exec(line) ?? []
    if (line.startsWith('{')) machine = JSON.parse(line) as GuestMachine
    else if (title !== undefined) (not === undefined ? passed : failed).push(title)
    else if (isOfFailure && failed.length > 0) failed[failed.length - 1] += `\n${line}`
    if (title !== undefined) isOfFailure = not !== undefined
  }
  return { machine, passed, failed }
}

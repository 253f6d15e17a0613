/**
 * Looks whether this machine can do what a node or a devnet asks of it, and installs the Debian packages that are
 * missing when told to.
 */
import { createServer } from 'node:net'
import { asSlicenetError, SlicenetError, type ErrorCode } from '../base/errors.ts'
import { run } from '../base/host-program.ts'
import { coreHandlerWarning, readCoreHandler } from '../enforce/core-handler.ts'
import { HOST_REQUIREMENTS, missingHostPrograms, type HostRequirement } from '../enforce/host-requirements.ts'
import { vulnerabilityWarning, type RuntimeChoice } from '../enforce/runtime-choice.ts'
import { connectControl } from './control-client.ts'
import { KERNEL_PROBES, type KernelProbe } from './kernel-probes.ts'
import { findRuntime } from './runtime-probe.ts'

export const DOCTOR_PURPOSES = ['node', 'devnet', 'tests'] as const
export type DoctorPurpose = (typeof DOCTOR_PURPOSES)[number]

export interface Check {
  readonly name: string
  /** `warning`: it works, but should not stay so. `skipped`: not looked at, because something else is missing. */
  readonly status: 'ok' | 'warning' | 'failed' | 'skipped'
  readonly detail: string
  readonly code?: ErrorCode
  readonly hint?: string
}

export interface Diagnosis {
  /** Whether all was looked at and works. */
  readonly ok: boolean
  readonly checks: readonly Check[]
  /** Debian packages of what is missing, each with what it is for. */
  readonly packages: readonly { readonly name: string; readonly why: readonly string[] }[]
}

export interface DoctorComponents {
  readonly nodeVersion: string
  readonly uid: number
  readonly requirements: readonly HostRequirement[]
  readonly missingPrograms: (requirements: readonly HostRequirement[]) => Promise<HostRequirement[]>
  readonly kernelProbes: readonly KernelProbe[]
  /** The OCI runtime that a node would use; throws when none works. */
  readonly findRuntime: () => Promise<RuntimeChoice>
  /** The program that the kernel hands crashed processes to. */
  readonly readCoreHandler: () => Promise<string | undefined>
  /** Runs a host program to its end; throws when it fails. */
  readonly run: (
    program: string,
    args: readonly string[],
    options: {
      readonly deadlineMs: number
      readonly env: Record<string, string>
      readonly signal?: AbortSignal
    }
  ) => Promise<string>
}

export const systemDoctor: DoctorComponents = {
  nodeVersion: process.versions.node,
  uid: process.getuid?.() ?? -1,
  requirements: HOST_REQUIREMENTS,
  missingPrograms: missingHostPrograms,
  kernelProbes: KERNEL_PROBES,
  findRuntime,
  readCoreHandler,
  run
}

export interface DoctorInit {
  readonly purpose: DoctorPurpose
  /** TCP ports that a daemon of this machine would listen on. */
  readonly ports: readonly number[]
  /** A daemon that answers there is who holds the ports. */
  readonly socketPath: string
  readonly signal?: AbortSignal
}

const NODE_MIN = [22, 20] as const
/** Programs without which no runtime can be tried. */
const RUNTIME_NEEDS = ['runc', 'catatonit']
const INSTALL_DEADLINE_MS = 30 * 60_000

/** Never throws for what is wrong with the machine: that is what it tells. */
export async function diagnose(components: DoctorComponents, init: DoctorInit): Promise<Diagnosis> {
  const requirements = components.requirements.filter(
    ({ onlyFor }) => onlyFor !== 'tests' || init.purpose === 'tests'
  )
  const missing = await components.missingPrograms(requirements)
  const checks = [
    checkNode(components.nodeVersion),
    checkRoot(components.uid),
    ...requirements.map((requirement) => checkProgram(requirement, missing)),
    ...(await checkKernel(components, missing, init)),
    await checkRuntime(components, missing, init),
    await checkCrashes(components),
    // The hosts of a devnet listen inside namespaces of their own.
    ...(init.purpose === 'node' ? await Promise.all(init.ports.map((port) => checkPort(port, init))) : [])
  ]
  return {
    ok: checks.every(({ status }) => status === 'ok' || status === 'warning'),
    checks,
    packages: packagesOf(missing)
  }
}

function packagesOf(missing: readonly HostRequirement[]): Diagnosis['packages'] {
  const reasons = new Map<string, string[]>()
  for (const { program, debianPackage, why } of missing) {
    reasons.set(debianPackage, [...(reasons.get(debianPackage) ?? []), `${program} ${why}`])
  }
  return [...reasons].map(([name, why]) => ({ name, why }))
}

/**
 * Installs the packages with apt-get. Does nothing when the list is empty.
 * Throws `NOT_ROOT`, `HOST_PROGRAM_MISSING` where there is no apt-get, `HOST_PROGRAM_FAILED`.
 */
export async function installPackages(
  components: DoctorComponents,
  packages: readonly string[],
  options: { readonly onOutput: (text: string) => void; readonly signal?: AbortSignal }
): Promise<void> {
  if (packages.length === 0) return
  if (components.uid !== 0) {
    throw new SlicenetError('NOT_ROOT', 'only root can install packages', {
      hint: `run as root: apt-get install --no-install-recommends ${packages.join(' ')}`
    })
  }
  const runOptions = {
    deadlineMs: INSTALL_DEADLINE_MS,
    env: { DEBIAN_FRONTEND: 'noninteractive' },
    ...(options.signal === undefined ? {} : { signal: options.signal })
  }
  for (const args of [['update'], ['install', '-y', '--no-install-recommends', ...packages]]) {
    options.onOutput(`+ apt-get ${args.join(' ')}\n`)
    options.onOutput(await components.run('apt-get', args, runOptions))
  }
}

/** What a diagnosis means for whoever must have the machine ready; `undefined` when it is. */
export function diagnosisError(diagnosis: Diagnosis): SlicenetError | undefined {
  const failed = diagnosis.checks.filter(({ status }) => status === 'failed')
  const [first] = failed
  if (first === undefined) return undefined
  const others = failed.length === 1 ? '' : `, and ${failed.length - 1} more`
  const install = diagnosis.packages.length > 0 ? 'run `slicenet doctor --install` as root' : first.hint
  return new SlicenetError(
    first.code ?? 'INTERNAL',
    `${first.name}: ${first.detail}${others}`,
    install === undefined ? {} : { hint: install }
  )
}

function checkNode(version: string): Check {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [needMajor, needMinor] = NODE_MIN
  const isEnough = major > needMajor || (major === needMajor && minor >= needMinor)
  const check = { name: 'Node.js', detail: `v${version}` }
  if (isEnough) return { ...check, status: 'ok' }
  const hint = `install Node.js ${NODE_MIN.join('.')} or later`
  return { ...check, status: 'failed', code: 'NODE_TOO_OLD', hint }
}

function checkRoot(uid: number): Check {
  if (uid === 0) return { name: 'root', status: 'ok', detail: 'yes' }
  const hint = 'run as root: namespaces, mounts and traffic rules need it'
  return { name: 'root', status: 'failed', detail: `uid ${uid}`, code: 'NOT_ROOT', hint }
}

function checkProgram(requirement: HostRequirement, missing: readonly HostRequirement[]): Check {
  const { program: name, debianPackage, why } = requirement
  if (!missing.some(({ program }) => program === name)) return { name, status: 'ok', detail: why }
  const hint = `apt-get install ${debianPackage}`
  return { name, status: 'failed', detail: `missing; it ${why}`, code: 'HOST_PROGRAM_MISSING', hint }
}

async function checkKernel(
  components: DoctorComponents,
  missing: readonly HostRequirement[],
  init: DoctorInit
): Promise<Check[]> {
  const options = init.signal === undefined ? {} : { signal: init.signal }
  const absent = new Set(missing.map(({ program }) => program))
  return Promise.all(
    components.kernelProbes.map(async ({ name, why, needs = [], probe }): Promise<Check> => {
      const lacking = needs.find((program) => absent.has(program))
      if (lacking !== undefined)
        return { name, status: 'skipped', detail: `looked at with ${lacking}, which is missing` }
      if (needs.length > 0 && components.uid !== 0)
        return { name, status: 'skipped', detail: 'only root can look' }
      try {
        return { name, status: 'ok', detail: `${await probe(options)}; for ${why}` }
      } catch (error) {
        init.signal?.throwIfAborted()
        return failedCheck(name, error)
      }
    })
  )
}

function failedCheck(name: string, error: unknown): Check {
  const { code, message, hint } = asSlicenetError(error)
  return { name, status: 'failed', detail: message, code, ...(hint === undefined ? {} : { hint }) }
}

async function checkRuntime(
  components: DoctorComponents,
  missing: readonly HostRequirement[],
  init: DoctorInit
): Promise<Check> {
  const name = 'OCI runtime'
  const lacking = missing.find(({ program }) => RUNTIME_NEEDS.includes(program))
  if (lacking !== undefined)
    return { name, status: 'skipped', detail: `looked at with ${lacking.program}, which is missing` }
  if (components.uid !== 0) return { name, status: 'skipped', detail: 'only root can look' }
  try {
    const chosen = await components.findRuntime()
    const detail = `${chosen.name} ${chosen.version ?? 'of an unknown version'} is chosen: ${chosen.why}`
    const warning = vulnerabilityWarning(chosen)
    if (warning === undefined) return { name, status: 'ok', detail }
    const hint = 'install a runtime with the fixes: runc 1.3.6, 1.4.3 or later, or crun where it works'
    return { name, status: 'warning', detail: `${detail}; ${warning}`, hint }
  } catch (error) {
    init.signal?.throwIfAborted()
    return failedCheck(name, error)
  }
}

async function checkCrashes(components: DoctorComponents): Promise<Check> {
  const name = 'kernel: core dumps'
  const warning = coreHandlerWarning(await components.readCoreHandler())
  if (warning === undefined) return { name, status: 'ok', detail: 'go to no program of the host' }
  const hint = 'sysctl kernel.core_pattern=core, or see to it that the program takes none of vservers'
  return { name, status: 'warning', detail: warning, hint }
}

async function checkPort(port: number, init: DoctorInit): Promise<Check> {
  const name = `TCP port ${port}`
  const code = await listenError(port)
  if (code === undefined) return { name, status: 'ok', detail: 'free' }
  if (code !== 'EADDRINUSE') return { name, status: 'failed', detail: code, code: 'PORT_IN_USE' }
  if (await daemonAnswers(init.socketPath))
    return { name, status: 'ok', detail: 'held by the daemon that runs' }
  const hint = `find out who holds it with: ss -ltnp sport = :${port}`
  return { name, status: 'failed', detail: 'in use by another program', code: 'PORT_IN_USE', hint }
}

async function listenError(port: number): Promise<string | undefined> {
  const server = createServer()
  return new Promise((resolve) => {
    server.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    server.listen({ port, host: '0.0.0.0' }, () => server.close(() => resolve(undefined)))
  })
}

async function daemonAnswers(socketPath: string): Promise<boolean> {
  try {
    const socket = await connectControl(socketPath)
    socket.destroy()
    return true
  } catch {
    return false
  }
}

/**
 * Which of the installed OCI runtimes a node's vservers get, and why: one that works on this machine, rather without
 * known vulnerabilities.
 */
import { runAnyway } from '../base/host-program.ts'
import { findHostProgram } from './host-requirements.ts'
import {
  findWorkingRuntime,
  type OciRuntimeName,
  type RuntimeProbeInit,
  type WorkingRuntime
} from './oci-runtime.ts'
import { knownVulnerabilities, parseRuntimeVersion } from './runtime-vulnerabilities.ts'

export interface InstalledRuntime {
  readonly name: OciRuntimeName
  /** Absent when the program does not tell it. */
  readonly version?: string
  /** Ids of those that are known, such as `CVE-2024-21626`. */
  readonly vulnerabilities: readonly string[]
}

export interface RuntimeChoice extends InstalledRuntime {
  /** Why this one and not another, in a few words. */
  readonly why: string
}

/** Administrators install what packages do not bring here, beside a package of the same name. */
const OWN_PROGRAMS = '/usr/local/'

/** Throws `HOST_PROGRAM_MISSING` when none works. */
export async function chooseRuntime(
  init: RuntimeProbeInit & { readonly unifiedCgroups: boolean }
): Promise<RuntimeChoice> {
  const order = runtimeOrder(init.unifiedCgroups)
  const looked = await Promise.all(order.map(inspectRuntime))
  const installed = looked.filter((runtime) => runtime !== undefined)
  const candidates = preferPatched(installed)
  const working = await findWorkingRuntime(
    candidates.map(({ name }) => name),
    init
  )
  const chosen = candidates.find(({ name }) => name === working.name)!
  return { ...chosen, why: explainChoice(chosen, installed, order, working.failures) }
}

/** `undefined` when it is not installed. */
export async function inspectRuntime(name: OciRuntimeName): Promise<InstalledRuntime | undefined> {
  const path = await findHostProgram(name)
  if (path === undefined) return undefined
  const [{ stdout }, packageVersion] = await Promise.all([
    runAnyway(path, ['--version']),
    path.startsWith(OWN_PROGRAMS) ? undefined : debianVersion(name)
  ])
  const version = parseRuntimeVersion(stdout, packageVersion)
  if (version === undefined) return { name, vulnerabilities: [] }
  return { name, version: version.text, vulnerabilities: knownVulnerabilities(name, version) }
}

/** Crun is the faster one, but takes only machines that have nothing but cgroups v2. */
export function runtimeOrder(unifiedCgroups: boolean): readonly OciRuntimeName[] {
  return unifiedCgroups ? ['crun', 'runc'] : ['runc', 'crun']
}

/** Those without known vulnerabilities first; else in the order given. */
export function preferPatched(runtimes: readonly InstalledRuntime[]): readonly InstalledRuntime[] {
  const isPatched = ({ vulnerabilities }: InstalledRuntime): boolean => vulnerabilities.length === 0
  return [...runtimes.filter(isPatched), ...runtimes.filter((runtime) => !isPatched(runtime))]
}

/** What became of the others, of which `order` names all that there are. */
export function explainChoice(
  chosen: InstalledRuntime,
  installed: readonly InstalledRuntime[],
  order: readonly OciRuntimeName[],
  failures: WorkingRuntime['failures']
): string {
  const reasons = order
    .filter((name) => name !== chosen.name)
    .map((name) => {
      const other = installed.find((runtime) => runtime.name === name)
      if (other === undefined) return `${name} is not installed`
      const failure = failures.get(name)
      if (failure !== undefined) return `${name} does not work here (${lastLine(failure)})`
      if (other.vulnerabilities.length > chosen.vulnerabilities.length)
        return `${name} has known vulnerabilities`
      return chosen.name === 'crun'
        ? `crun is faster than ${name}`
        : `${chosen.name} takes every kind of cgroups`
    })
  return reasons.join(', ')
}

/** For people; `undefined` when nothing is known against it. */
export function vulnerabilityWarning(runtime: InstalledRuntime): string | undefined {
  const { name, version = '', vulnerabilities } = runtime
  if (vulnerabilities.length === 0) return undefined
  return `${name} ${version} has known vulnerabilities: ${vulnerabilities.join(', ')}`
}

async function debianVersion(packageName: string): Promise<string | undefined> {
  const query = ['--show', '--showformat', '${Version}', packageName]
  const result = await runAnyway('dpkg-query', query).catch(() => undefined)
  return result?.exitCode === 0 ? result.stdout.trim() : undefined
}

function lastLine(text: string): string {
  return (text.trim().split('\n').at(-1) ?? '').slice(0, 200)
}

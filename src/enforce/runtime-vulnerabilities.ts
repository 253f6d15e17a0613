/**
 * Which known vulnerabilities an OCI runtime has, by what it and the distribution say of its version. Distributions mend
 * old releases without a new number, so their package versions count too. Pure.
 */
import type { OciRuntimeName } from './oci-runtime.ts'

export interface RuntimeVersion {
  /** The package's version where there is one, else what the program says. */
  readonly text: string
  readonly release: Release
  /** The distribution's version of the same release. */
  readonly package?: string
}

interface Release {
  readonly major: number
  readonly minor: number
  readonly patch: number
  /** Of a release candidate its number; of a release itself, which comes after all of them, infinity. */
  readonly candidate: number
}

interface Vulnerability {
  readonly id: string
  readonly runtime: OciRuntimeName
  /** The first release that has it; default all. */
  readonly since?: string
  /** The first release with the fix of each line that got one, in order; all lines after the last have it. */
  readonly fixedIn: readonly string[]
  /** Packages of releases without the fix that have it nevertheless, as have later ones of the same package. */
  readonly fixedPackages?: readonly string[]
}

/** What fixes the three of 2025; Debian 12 and 13 had no package with them when this was written, their versions count as vulnerable. */
const PROC_WRITES_FIXED = ['1.2.8', '1.3.3', '1.4.0-rc.3']

/**
 * Sources: GHSA-xr7r-f8xq-vfvv, DSA-5615-1 and USN-6619-1 for the first; GHSA-9493-h29p-rfm2, GHSA-qw9x-cqr3-wc7r and
 * GHSA-cgrx-mc8f-2prm for those of 2025 (https://seclists.org/oss-sec/2025/q4/138); GHSA-xjvp-4fhw-gc47 and runc's own
 * changelog of 1.3.6, 1.4.3 and 1.5.0-rc.3 for the last, of which no other package is known to have the fix. No crun is
 * among them: it was never affected by the first (https://github.com/containers/crun/pull/1412), its maintainers tried the
 * reproducers of those of 2025 in vain (https://github.com/containers/crun/issues/1906), and the last is told of runc alone.
 */
const VULNERABILITIES: readonly Vulnerability[] = [
  {
    id: 'CVE-2024-21626',
    runtime: 'runc',
    since: '1.0.0-rc93',
    fixedIn: ['1.1.12'],
    fixedPackages: [
      '1.0.0~rc93+ds1-5+deb11u3',
      '1.1.5+ds1-1+deb12u1',
      '1.1.7-0ubuntu1~20.04.2',
      '1.1.7-0ubuntu1~22.04.2',
      '1.1.7-0ubuntu2.2'
    ]
  },
  { id: 'CVE-2025-31133', runtime: 'runc', fixedIn: PROC_WRITES_FIXED },
  { id: 'CVE-2025-52565', runtime: 'runc', since: '1.0.0-rc3', fixedIn: PROC_WRITES_FIXED },
  { id: 'CVE-2025-52881', runtime: 'runc', fixedIn: PROC_WRITES_FIXED },
  { id: 'CVE-2026-41579', runtime: 'runc', fixedIn: ['1.3.6', '1.4.3', '1.5.0-rc.3'] }
]

/**
 * Reads what `runc --version` or `crun --version` prints. A `packageVersion` of another release is of another program
 * and does not count. `undefined` when the output tells no version.
 */
export function parseRuntimeVersion(output: string, packageVersion?: string): RuntimeVersion | undefined {
  const said = /^(?:runc|crun) version (\S+)/m.exec(output)?.[1]
  const release = said === undefined ? undefined : parseRelease(said)
  if (said === undefined || release === undefined) return undefined
  // Debian's runc gives its package's version as its commit, Ubuntu's as its version.
  const commit = /^commit: (\S+)$/m.exec(output)?.[1]
  const packaged = [packageVersion, commit, said].find((text) => isPackageOf(text, release))
  return { text: packaged ?? said, release, ...(packaged === undefined ? {} : { package: packaged }) }
}

/** Ids of the known vulnerabilities that this version has. */
export function knownVulnerabilities(runtime: OciRuntimeName, version: RuntimeVersion): readonly string[] {
  return VULNERABILITIES.filter(
    (vulnerability) => vulnerability.runtime === runtime && isVulnerable(version, vulnerability)
  ).map(({ id }) => id)
}

function isVulnerable(version: RuntimeVersion, vulnerability: Vulnerability): boolean {
  const { since, fixedIn, fixedPackages = [] } = vulnerability
  const { release } = version
  if (since !== undefined && compare(release, mustParse(since)) < 0) return false
  const fixes = fixedIn.map(mustParse)
  const ownLine = fixes.find((fix) => compareLines(release, fix) === 0)
  const isFixed =
    ownLine === undefined
      ? fixes.every((fix) => compareLines(release, fix) > 0)
      : compare(release, ownLine) >= 0
  return !isFixed && !fixedPackages.some((fixed) => isAtLeastPackage(version.package, fixed))
}

/** Whether both differ only in the number at the end, which distributions count up, and `version` has no lower one. */
function isAtLeastPackage(version: string | undefined, fixed: string): boolean {
  if (version === undefined) return false
  // A package that was only built again has the changes of the one before.
  const [have, want] = [version.replace(/\+b\d+$/, ''), fixed].map((text) => /^(.*?)(\d+)$/.exec(text))
  return have?.[1] === want?.[1] && Number(have?.[2]) >= Number(want?.[2])
}

/** A package's version has a revision, a number after a dash; `v1.2.5-0-g5992` is git's name of a commit. */
function isPackageOf(text: string | undefined, release: Release): text is string {
  if (text === undefined || !/^\d[^-]*-\d/.test(text)) return false
  const own = parseRelease(text)
  return own !== undefined && compare(own, release) === 0
}

/** Such as `1.1.12`, `1.25`, `1.4.0-rc.3`, `1.0.0~rc93+ds1-5+deb11u3`. */
function parseRelease(text: string): Release | undefined {
  const match = /^v?(?:\d+:)?(\d+)\.(\d+)(?:\.(\d+))?(?:[-~]rc\.?(\d+))?/.exec(text)
  if (match === null) return undefined
  const [, major, minor, patch = 0, candidate = Infinity] = match
  return {
    major: Number(major),
    minor: Number(minor),
    patch: Number(patch),
    candidate: Number(candidate)
  }
}

function mustParse(text: string): Release {
  const release = parseRelease(text)
  if (release === undefined) throw new TypeError(`${text} is no release`)
  return release
}

function compareLines(a: Release, b: Release): number {
  return a.major - b.major || a.minor - b.minor
}

function compare(a: Release, b: Release): number {
  return (
    compareLines(a, b) ||
    a.patch - b.patch ||
    // The difference of two infinities is no number.
    (a.candidate === b.candidate ? 0 : a.candidate - b.candidate)
  )
}

import test from 'ava'
import { OCI_RUNTIMES, type OciRuntimeName } from '../../src/enforce/oci-runtime.ts'
import { knownVulnerabilities, parseRuntimeVersion } from '../../src/enforce/runtime-vulnerabilities.ts'

const LEAKED_DESCRIPTOR = 'CVE-2024-21626'
const PROC_WRITES = ['CVE-2025-31133', 'CVE-2025-52565', 'CVE-2025-52881']
const DEVICES_ASTRAY = 'CVE-2026-41579'
const ALL_LATER = [...PROC_WRITES, DEVICES_ASTRAY]
const ALL = [LEAKED_DESCRIPTOR, ...ALL_LATER]

interface Sample {
  readonly from: string
  readonly output: string
  /** As `dpkg-query` tells it. */
  readonly package?: string
  readonly text: string
  readonly vulnerabilities: readonly string[]
}

/** Each printed by the program it names. */
const SAMPLES: readonly Sample[] = [
  {
    from: 'Debian 12',
    output:
      'runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\ngo: go1.19.8\nlibseccomp: 2.5.4\n',
    text: '1.1.5+ds1-1+deb12u1',
    vulnerabilities: ALL_LATER
  },
  {
    from: 'Ubuntu 22.04 before its fix',
    output: 'runc version 1.1.7-0ubuntu1~22.04.1\nspec: 1.0.2-dev\ngo: go1.18.1\nlibseccomp: 2.5.3\n',
    text: '1.1.7-0ubuntu1~22.04.1',
    vulnerabilities: ALL
  },
  {
    from: 'Oracle Linux 8',
    output:
      'runc version 1.1.12\nspec: 1.0.2-dev\ngo: go1.22.7 (Red Hat 1.22.7-1.module+el8.10.0+90426+810ab996)\nlibseccomp: 2.5.2\n',
    text: '1.1.12',
    vulnerabilities: ALL_LATER
  },
  {
    from: 'upstream 1.1.2',
    output:
      'runc version 1.1.2\ncommit: v1.1.2-0-ga916309f\nspec: 1.0.2-dev\ngo: go1.17.10\nlibseccomp: 2.5.3\n',
    text: '1.1.2',
    vulnerabilities: ALL
  },
  {
    from: 'upstream 1.2.0-rc.3',
    output:
      'runc version 1.2.0-rc.3\ncommit: v1.2.0-rc.3-0-g45471bc9\nspec: 1.2.0\ngo: go1.22.6\nlibseccomp: 2.5.5\n',
    text: '1.2.0-rc.3',
    vulnerabilities: ALL_LATER
  },
  {
    from: 'upstream 1.3.3',
    output: 'runc version 1.3.3\ncommit: v1.3.3-0-gd842d771\nspec: 1.2.1\ngo: go1.23.12\nlibseccomp: 2.5.6\n',
    text: '1.3.3',
    vulnerabilities: [DEVICES_ASTRAY]
  },
  {
    from: 'crun of Debian 12',
    output:
      'crun version 1.8.1\ncommit: f8a096be060b22ccd3d5f3ebe44108517fbf6c30\nrundir: /run/user/1000/crun\nspec: 1.0.0\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +YAJL\n',
    package: '1.8.1-1+deb12u1',
    text: '1.8.1-1+deb12u1',
    vulnerabilities: []
  },
  {
    from: 'crun whose commit starts with a digit',
    output:
      'crun version 1.21\ncommit: 10269840aa07fb7e6b7e1acff6198692d8ff5c88\nrundir: /run/user/3267/crun\nspec: 1.0.0\n',
    text: '1.21',
    vulnerabilities: []
  },
  {
    from: 'crun built in a changed tree',
    output: 'crun version 0.19-dirty\ncommit: e67a75672412975916dac6b87f8346f870e4b99a\nspec: 1.0.0\n',
    text: '0.19-dirty',
    vulnerabilities: []
  }
]

for (const { from, output, package: packaged, text, vulnerabilities } of SAMPLES) {
  test(`the version and the vulnerabilities of ${from}`, (t) => {
    const name = OCI_RUNTIMES.find((runtime) => output.startsWith(runtime))!
    const version = parseRuntimeVersion(output, packaged)
    t.is(version?.text, text)
    t.deepEqual(knownVulnerabilities(name, version!), vulnerabilities)
  })
}

test('what is no version of a runtime is not understood', (t) => {
  for (const output of [
    '',
    'Failed to get state directory\n',
    'runc version unknown\n',
    'youki version 0.5.7\n'
  ])
    t.is(parseRuntimeVersion(output), undefined)
})

function vulnerabilities(version: string, packaged?: string, runtime: OciRuntimeName = 'runc'): string[] {
  return [...knownVulnerabilities(runtime, parseRuntimeVersion(`${runtime} version ${version}\n`, packaged)!)]
}

test('a fix counts from its first release of each line on, and in all lines after', (t) => {
  for (const version of ['1.3.6', '1.3.10', '1.4.3', '1.5.0-rc.3', '1.5.0', '1.6.0-rc.1', '2.0.0'])
    t.deepEqual(vulnerabilities(version), [], version)
  for (const version of ['1.2.8', '1.2.9', '1.3.3', '1.3.5', '1.4.0-rc.3', '1.4.2', '1.5.0-rc.2'])
    t.deepEqual(vulnerabilities(version), [DEVICES_ASTRAY], version)
  for (const version of ['1.1.12', '1.1.15', '1.2.7', '1.2.8-rc.1', '1.3.0', '1.3.2', '1.4.0-rc.2'])
    t.deepEqual(vulnerabilities(version), ALL_LATER, version)
  for (const version of ['1.0.0-rc93', '1.0.3', '1.1.11', '1.1.12-rc.1'])
    t.deepEqual(vulnerabilities(version), ALL, version)
})

test('releases from before a vulnerability do not have it', (t) => {
  t.deepEqual(vulnerabilities('1.0.0-rc92'), ALL_LATER)
  t.deepEqual(vulnerabilities('1.0.0-rc2'), ['CVE-2025-31133', 'CVE-2025-52881', DEVICES_ASTRAY])
})

test('a package with the fix of an old release has it, and so have its later revisions', (t) => {
  const fixed: readonly (readonly [version: string, packaged: string])[] = [
    ['1.1.5+ds1', '1.1.5+ds1-1+deb12u1'],
    ['1.1.5+ds1', '1.1.5+ds1-1+deb12u1+b2'],
    ['1.1.5+ds1', '1.1.5+ds1-1+deb12u10'],
    ['1.0.0~rc93+ds1', '1.0.0~rc93+ds1-5+deb11u3'],
    ['1.1.7-0ubuntu1~22.04.2', '1.1.7-0ubuntu1~22.04.2']
  ]
  for (const [version, packaged] of fixed)
    t.deepEqual(vulnerabilities(version, packaged), ALL_LATER, packaged)
  const unfixed: typeof fixed = [
    ['1.1.5+ds1', '1.1.5+ds1-1+b1'],
    ['1.1.5+ds1', '1.1.5+ds1-1'],
    ['1.0.0~rc93+ds1', '1.0.0~rc93+ds1-5+deb11u2'],
    ['1.1.7-0ubuntu1~22.04.1', '1.1.7-0ubuntu1~22.04.1']
  ]
  for (const [version, packaged] of unfixed) t.deepEqual(vulnerabilities(version, packaged), ALL, packaged)
})

test('the package of another release says nothing about the program', (t) => {
  const version = parseRuntimeVersion('runc version 1.1.4\n', '1.1.5+ds1-1+deb12u1')
  t.is(version?.text, '1.1.4')
  t.is(version?.package, undefined)
})

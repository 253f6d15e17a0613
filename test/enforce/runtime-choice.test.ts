import test from 'ava'
import {
  explainChoice,
  preferPatched,
  runtimeOrder,
  vulnerabilityWarning,
  type InstalledRuntime
} from '../../src/enforce/runtime-choice.ts'
import type { OciRuntimeName } from '../../src/enforce/oci-runtime.ts'

const CVE = 'CVE-2024-21626'

function runtime(name: OciRuntimeName, ...vulnerabilities: readonly string[]): InstalledRuntime {
  return { name, version: '1.0', vulnerabilities }
}

function names(runtimes: readonly InstalledRuntime[]): string[] {
  return preferPatched(runtimes).map(({ name }) => name)
}

test('a runtime without known vulnerabilities is tried before one with them', (t) => {
  t.deepEqual(names([runtime('runc', CVE), runtime('crun')]), ['crun', 'runc'])
  t.deepEqual(names([runtime('crun', CVE), runtime('runc')]), ['runc', 'crun'])
})

test('among equals the order stays', (t) => {
  t.deepEqual(runtimeOrder(true), ['crun', 'runc'])
  t.deepEqual(names([runtime('crun'), runtime('runc')]), ['crun', 'runc'])
  t.deepEqual(names([runtime('runc', CVE), runtime('crun', CVE, CVE)]), ['runc', 'crun'])
})

test('the reason says what became of the other one', (t) => {
  const [runc, crun] = [runtime('runc'), runtime('crun')]
  const order = runtimeOrder(false)
  const explain = (
    chosen: InstalledRuntime,
    installed: readonly InstalledRuntime[],
    failures: readonly [OciRuntimeName, string][] = []
  ): string => explainChoice(chosen, installed, order, new Map(failures))
  t.is(explain(runc, [runc]), 'crun is not installed')
  t.is(explain(runc, [runc, crun]), 'runc takes every kind of cgroups')
  t.is(explain(crun, [runc, crun]), 'crun is faster than runc')
  t.is(explain(crun, [runtime('runc', CVE), crun]), 'runc has known vulnerabilities')
  const failed = explain(runtime('runc', CVE), [runc, crun], [['crun', 'crun exited with 1:\nno cgroups']])
  t.is(failed, 'crun does not work here (no cgroups)')
})

test('the warning names the version and all that is known', (t) => {
  t.is(vulnerabilityWarning(runtime('runc')), undefined)
  t.is(vulnerabilityWarning(runtime('runc', CVE)), `runc 1.0 has known vulnerabilities: ${CVE}`)
})

import test from 'ava'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SlicenetError } from '../../src/base/errors.ts'
import {
  diagnose,
  diagnosisError,
  installPackages,
  systemDoctor,
  type Check,
  type Diagnosis,
  type DoctorComponents
} from '../../src/daemon/doctor.ts'
import { coreHandlerOf } from '../../src/enforce/core-handler.ts'
import { serveControl } from './control-fixture.ts'

const REQUIREMENTS = [
  { program: 'nft', debianPackage: 'nftables', why: 'holds the rules' },
  { program: 'tc', debianPackage: 'iproute2', why: 'shapes' },
  { program: 'ip', debianPackage: 'iproute2', why: 'makes links' }
]
const RUNTIME = { name: 'runc', version: '1.3.6', vulnerabilities: [], why: 'crun is not installed' } as const
const INIT = { purpose: 'node', ports: [], socketPath: '/nowhere/control.sock' } as const

function doctor(changes: Partial<DoctorComponents> = {}): DoctorComponents {
  return {
    nodeVersion: '24.0.0',
    uid: 0,
    requirements: REQUIREMENTS,
    missingPrograms: async () => [],
    kernelProbes: [],
    findRuntime: async () => RUNTIME,
    readCoreHandler: async () => undefined,
    run: async () => {
      throw new Error('nothing was to be run')
    },
    ...changes
  }
}

function statusOf(diagnosis: Diagnosis, name: string): string | undefined {
  return diagnosis.checks.find((check) => check.name === name)?.status
}

test('a machine that has everything is in order', async (t) => {
  const diagnosis = await diagnose(doctor(), INIT)
  t.true(diagnosis.ok)
  t.is(diagnosisError(diagnosis), undefined)
})

test('an old Node.js and an ordinary account are told with their codes', async (t) => {
  const old = diagnosisError(await diagnose(doctor({ nodeVersion: '22.19.5' }), INIT))
  t.is(old?.code, 'NODE_TOO_OLD')
  const ordinary = diagnosisError(await diagnose(doctor({ uid: 1000 }), INIT))
  t.is(ordinary?.code, 'NOT_ROOT')
})

test('missing programs name their packages once each, with all that they are for', async (t) => {
  const diagnosis = await diagnose(doctor({ missingPrograms: async (all) => all.slice(1) }), INIT)
  t.false(diagnosis.ok)
  t.deepEqual(diagnosis.packages, [{ name: 'iproute2', why: ['tc shapes', 'ip makes links'] }])
  const error = diagnosisError(diagnosis)
  t.is(error?.code, 'HOST_PROGRAM_MISSING')
  t.regex(error?.hint ?? '', /doctor --install/)
})

test('a kernel without a feature fails, and what cannot be looked at is skipped', async (t) => {
  const kernelProbes = [
    { name: 'a', why: 'x', probe: async () => 'there' },
    {
      name: 'b',
      why: 'x',
      probe: async () => {
        throw new SlicenetError('KERNEL_FEATURE_MISSING', 'no b')
      }
    },
    { name: 'c', why: 'x', needs: ['nft'], probe: async () => 'there' }
  ]
  const missing = await diagnose(
    doctor({ kernelProbes, missingPrograms: async (all) => all.slice(0, 1) }),
    INIT
  )
  t.deepEqual(
    ['a', 'b', 'c'].map((name) => statusOf(missing, name)),
    ['ok', 'failed', 'skipped']
  )
  const there = await diagnose(doctor({ kernelProbes }), INIT)
  t.is(statusOf(there, 'c'), 'ok')
  t.is(diagnosisError(there)?.code, 'KERNEL_FEATURE_MISSING')
  t.is(statusOf(await diagnose(doctor({ kernelProbes, uid: 1 }), INIT), 'c'), 'skipped')
})

test('the chosen runtime is told with the reason, and what is known against it is a warning', async (t) => {
  const checkOf = async (changes: Partial<DoctorComponents>): Promise<Check | undefined> => {
    const diagnosis = await diagnose(doctor(changes), INIT)
    t.is(diagnosis.ok, diagnosisError(diagnosis) === undefined && statusOf(diagnosis, NAME) !== 'skipped')
    return diagnosis.checks.find(({ name }) => name === NAME)
  }
  const NAME = 'OCI runtime'
  const detail = 'runc 1.3.6 is chosen: crun is not installed'
  t.deepEqual(await checkOf({}), { name: NAME, status: 'ok', detail })
  const vulnerabilities = ['CVE-2025-31133', 'CVE-2025-52881']
  const vulnerable = await checkOf({ findRuntime: async () => ({ ...RUNTIME, vulnerabilities }) })
  t.is(vulnerable?.status, 'warning')
  t.is(vulnerable?.detail, `${detail}; runc 1.3.6 has known vulnerabilities: CVE-2025-31133, CVE-2025-52881`)
  t.regex(vulnerable?.hint ?? '', /runc 1\.3\.6/)
  const none = await checkOf({
    findRuntime: async () => {
      throw new SlicenetError('HOST_PROGRAM_MISSING', 'no OCI runtime works on this machine')
    }
  })
  t.is(none?.code, 'HOST_PROGRAM_MISSING')
  const runc = { program: 'runc', debianPackage: 'runc', why: 'runs vservers' }
  t.is((await checkOf({ requirements: [runc], missingPrograms: async (all) => [...all] }))?.status, 'skipped')
})

test('a program that the kernel hands crashes to is a warning', async (t) => {
  const of = async (pattern: string): Promise<Check | undefined> => {
    const readCoreHandler = async (): Promise<string | undefined> => coreHandlerOf(pattern)
    const diagnosis = await diagnose(doctor({ readCoreHandler }), INIT)
    t.true(diagnosis.ok)
    return diagnosis.checks.find(({ name }) => name === 'kernel: core dumps')
  }
  for (const pattern of ['core\n', '/var/crash/core.%p\n', ''])
    t.is((await of(pattern))?.status, 'ok', pattern)
  const piped = await of('|/usr/share/apport/apport -p%p -s%s\n')
  t.is(piped?.status, 'warning')
  t.regex(piped?.detail ?? '', /apport -p%p -s%s$/)
})

test('a port in use fails for a node, unless the daemon that runs holds it; a devnet does not mind', async (t) => {
  // Beyond those that the kernel gives to others, who might have it next.
  const server = createServer().listen(61_000 + (process.pid % 4000), '0.0.0.0')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const ports = [port]
  const taken = await diagnose(doctor(), { ...INIT, ports })
  t.is(diagnosisError(taken)?.code, 'PORT_IN_USE')
  t.true((await diagnose(doctor(), { ...INIT, ports, purpose: 'devnet' })).ok)
  {
    await using control = await serveControl({})
    t.true((await diagnose(doctor(), { ...INIT, ports, socketPath: control.socketPath })).ok)
  }
  server.close()
  await once(server, 'close')
  t.true((await diagnose(doctor(), { ...INIT, ports })).ok)
})

test('installing runs apt-get twice with the packages, and not at all without', async (t) => {
  const ran: string[] = []
  const components = doctor({
    run: async (program, args) => {
      ran.push(`${program} ${args.join(' ')}`)
      return ''
    }
  })
  await installPackages(components, [], { onOutput: () => {} })
  t.deepEqual(ran, [])
  await installPackages(components, ['nftables', 'iproute2'], { onOutput: () => {} })
  t.deepEqual(ran, ['apt-get update', 'apt-get install -y --no-install-recommends nftables iproute2'])
})

test('only root installs, and others are told what to run', async (t) => {
  const installing = installPackages(doctor({ uid: 1000 }), ['nftables'], { onOutput: () => {} })
  const error = await t.throwsAsync(installing, { instanceOf: SlicenetError })
  t.is(error?.code, 'NOT_ROOT')
  t.regex(error?.hint ?? '', /apt-get install --no-install-recommends nftables/)
})

test('without any program on the path every one is missing', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-empty-'))
  const elsewhere = systemDoctor.requirements.map((requirement) => ({
    ...requirement,
    program: join(directory, requirement.program)
  }))
  const init = { ...INIT, purpose: 'tests' as const }
  const diagnosis = await diagnose(doctor({ ...systemDoctor, requirements: elsewhere }), init)
  const failed = diagnosis.checks.filter(({ code }) => code === 'HOST_PROGRAM_MISSING')
  t.is(failed.length, elsewhere.length)
  await rm(directory, { recursive: true })
})

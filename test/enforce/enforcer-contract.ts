/** What every `Enforcer` must do, whatever is behind it. The programs it uses are those of contract-programs.ts. */
import { setTimeout as delay } from 'node:timers/promises'
import type { TestFn } from 'ava'
import type { SlicenetError } from '../../src/base/errors.ts'
import type { Enforcer, ExecSession, LogChunk, VserverSpec } from '../../src/enforce/enforcer.ts'
import { declareTerminalTests } from './terminal-contract.ts'

export interface ContractHarness {
  /** Started, with no vserver in it. */
  readonly enforcer: () => Enforcer
  /** An image that has the programs. */
  readonly image: () => string
  /** Stops the enforcer and starts another on what it left. */
  readonly restart: () => Promise<void>
  /** Waits until `usage` shows what was written, where it is behind. */
  readonly settle?: (id: string) => Promise<void>
}

export const SMALL = {
  cpuMillis: 100,
  cpuMillisMax: 2000,
  memoryBytes: 64 * 1024 * 1024,
  diskBytes: 64 * 1024 * 1024,
  egressBps: 1_000_000,
  egressBpsMax: 10_000_000,
  egressBytesPerDay: 1_000_000_000,
  pids: 32
}
const MISSING_IMAGE = `sha256:${'0'.repeat(64)}`

export async function outputOf(session: ExecSession): Promise<{ output: string; exitCode: number }> {
  let output = ''
  for await (const { bytes } of session.output) output += Buffer.from(bytes).toString()
  return { output, exitCode: await session.exitCode }
}

export async function collect(chunks: AsyncIterable<LogChunk>): Promise<string> {
  let log = ''
  for await (const { bytes } of chunks) log += Buffer.from(bytes).toString()
  return log
}

export function vserverSpec(image: string, over: Partial<VserverSpec> = {}): VserverSpec {
  return {
    id: 'contract-1',
    slice: 'contract',
    image,
    resources: SMALL,
    ports: [],
    rights: [],
    keys: [],
    ...over
  }
}

/** Declares the suite; tests run one after the other on one enforcer. */
export function enforcerContract(test: TestFn, harness: ContractHarness): void {
  declareLifeTests(test, harness)
  declareRefusalTests(test, harness)
  declareProgramTests(test, harness)
  declareTerminalTests(test, {
    outputOf,
    within: async (body) => withVserver(harness, body)
  })
  declareChangeTests(test, harness)
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 30_000
  while (!(await condition())) {
    if (performance.now() > end) throw new Error('it did not come to be')
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** Runs `body` with one vserver and takes it away after. */
async function withVserver(
  harness: ContractHarness,
  body: (enforcer: Enforcer, id: string) => Promise<void>
): Promise<void> {
  const spec = vserverSpec(harness.image())
  await harness.enforcer().create(spec)
  try {
    await body(harness.enforcer(), spec.id)
  } finally {
    await harness.enforcer().destroy(spec.id)
  }
}

function declareLifeTests(test: TestFn, harness: ContractHarness): void {
  test.serial('a vserver is there from create to destroy', async (t) => {
    const enforcer = harness.enforcer()
    const spec = vserverSpec(harness.image())
    const made = await enforcer.create(spec)
    t.is(made.state, 'created')
    t.is(made.image, spec.image)
    t.deepEqual(await enforcer.status(spec.id), made)
    t.deepEqual(await enforcer.list(), [made])
    await enforcer.destroy(spec.id)
    t.is(await enforcer.status(spec.id), undefined)
    t.deepEqual(await enforcer.list(), [])
    await t.notThrowsAsync(enforcer.destroy(spec.id))
  })

  test.serial(
    'creating what exists gives the same vserver, and another of its name is refused',
    async (t) => {
      await withVserver(harness, async (enforcer, id) => {
        const spec = vserverSpec(harness.image())
        const before = await enforcer.status(id)
        t.deepEqual(await enforcer.create(spec), before!)
        const bigger = { ...spec, resources: { ...SMALL, pids: 33 } }
        await t.throwsAsync<SlicenetError>(enforcer.create(bigger), { code: 'VSERVER_FAILED' })
        t.deepEqual(await enforcer.status(id), before)
      })
    }
  )

  test.serial('two that create the same vserver at the same time get one', async (t) => {
    const spec = vserverSpec(harness.image())
    const enforcer = harness.enforcer()
    const [a, b] = await Promise.all([enforcer.create(spec), enforcer.create(spec)])
    t.deepEqual(a, b)
    await enforcer.destroy(spec.id)
  })

  test.serial(
    'what runs in a vserver is seen with its command line, an administrative one too',
    async (t) => {
      const enforcer = harness.enforcer()
      for (const rights of [[], ['administrative', 'cap-net-raw']]) {
        const spec = vserverSpec(harness.image(), { rights })
        t.is((await enforcer.create(spec)).state, 'created')
        const before = await enforcer.processes(spec.id)
        await enforcer.launch(spec.id, { argv: ['sleep', '1234'], env: {} })
        const known = new Set(before.map(({ pid }) => pid))
        const others = async () => (await enforcer.processes(spec.id)).filter(({ pid }) => !known.has(pid))
        // A program has no arguments for the moment in which the kernel puts it in place.
        for (let tries = 0; tries < 100 && (await others())[0]?.argv[0] === '[sleep]'; tries++)
          await delay(10)
        const [added, ...more] = await others()
        t.like(added, { argv: ['sleep', '1234'], uid: 0 })
        t.true(Number.isSafeInteger(added?.startedTicks))
        t.deepEqual(more, [])
        await enforcer.destroy(spec.id)
      }
      await t.throwsAsync<SlicenetError>(enforcer.processes('nobody'), { code: 'NOT_FOUND' })
    }
  )

  test.serial('rights that do not go together make no vserver', async (t) => {
    const port = { protocol: 'udp' as const, first: 9000, last: 9000 }
    for (const over of [
      { rights: ['cap-net-raw'] },
      { rights: ['administrative', 'raw-socket'] },
      { rights: ['administrative'], ports: [port] }
    ]) {
      const spec = vserverSpec(harness.image(), over)
      await t.throwsAsync<SlicenetError>(harness.enforcer().create(spec), { code: 'USAGE' })
    }
    t.deepEqual(await harness.enforcer().list(), [])
  })

  test.serial('capacity and usage are whole numbers', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      const { resources, attributes } = await enforcer.capacity()
      for (const amount of Object.values(resources)) t.true(Number.isSafeInteger(amount) && amount > 0)
      t.is(attributes.os, 'linux')
      for (const amount of Object.values(await enforcer.usage(id))) {
        t.true(Number.isSafeInteger(amount) && amount >= 0)
      }
      t.is(typeof (await enforcer.dropped(id)), 'object')
    })
  })

  test.serial('a vserver and its program outlive the monitor', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      await enforcer.launch(id, { argv: ['sleep', '1000'], env: {} })
      const before = await enforcer.status(id)
      await harness.restart()
      t.deepEqual(await harness.enforcer().status(id), before)
      t.is((await harness.enforcer().list()).length, 1)
      await harness.enforcer().stopProgram(id)
      t.is((await harness.enforcer().status(id))?.exit?.exitCode, 143)
    })
  })
}

function declareRefusalTests(test: TestFn, harness: ContractHarness): void {
  test.serial('a vserver of a missing image is refused and leaves nothing', async (t) => {
    const enforcer = harness.enforcer()
    await t.throwsAsync<SlicenetError>(enforcer.create(vserverSpec(MISSING_IMAGE)), { code: 'IMAGE_MISSING' })
    t.deepEqual(await enforcer.list(), [])
  })

  test.serial('a vserver with a port that another owns is refused and leaves nothing', async (t) => {
    const enforcer = harness.enforcer()
    const ports = [{ protocol: 'udp' as const, first: 9000, last: 9010 }]
    const first = vserverSpec(harness.image(), { ports })
    const second = vserverSpec(harness.image(), { id: 'contract-2', ports: [{ ...ports[0]!, first: 9010 }] })
    await enforcer.create(first)
    await t.throwsAsync<SlicenetError>(enforcer.create(second), { code: 'PORT_IN_USE' })
    t.deepEqual(
      (await enforcer.list()).map(({ id }) => id),
      [first.id]
    )
    await enforcer.destroy(first.id)
  })

  for (const id of ['', 'UPPER', '../up', 'a'.repeat(41)]) {
    test.serial(`a vserver cannot be called ${JSON.stringify(id)}`, async (t) => {
      const spec = vserverSpec(harness.image(), { id })
      await t.throwsAsync<SlicenetError>(harness.enforcer().create(spec), { code: 'USAGE' })
    })
  }

  test.serial('what is asked of an unknown vserver is NOT_FOUND', async (t) => {
    const enforcer = harness.enforcer()
    const program = { argv: ['echo'], env: {} }
    const notFound = { code: 'NOT_FOUND' }
    await t.throwsAsync<SlicenetError>(enforcer.launch('nobody', program), notFound)
    await t.throwsAsync<SlicenetError>(enforcer.exec('nobody', program), notFound)
    await t.throwsAsync<SlicenetError>(enforcer.upload('nobody', []), notFound)
    await t.throwsAsync<SlicenetError>(enforcer.setKeys('nobody', []), notFound)
    await t.throwsAsync<SlicenetError>(enforcer.stopProgram('nobody'), notFound)
    await t.throwsAsync<SlicenetError>(enforcer.usage('nobody'), notFound)
    await t.throwsAsync<SlicenetError>(enforcer.dropped('nobody'), notFound)
    await t.throwsAsync<SlicenetError>(enforcer.signal('nobody', 'SIGHUP'), notFound)
    await t.throwsAsync<SlicenetError>(enforcer.freeze('nobody'), notFound)
    await t.throwsAsync<SlicenetError>(enforcer.thaw('nobody'), notFound)
    await t.throwsAsync<SlicenetError>(enforcer.resize('nobody', SMALL), notFound)
    await t.throwsAsync<SlicenetError>(collect(enforcer.logs('nobody')), notFound)
  })

  test.serial('a program that is not there is refused and changes nothing', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      const program = { argv: ['no-such-program'], env: {} }
      await t.throwsAsync<SlicenetError>(enforcer.launch(id, program), { code: 'PROGRAM_NOT_FOUND' })
      await t.throwsAsync<SlicenetError>(enforcer.exec(id, program), { code: 'PROGRAM_NOT_FOUND' })
      t.is((await enforcer.status(id))?.state, 'created')
    })
  })

  test.serial('input beyond the limits is refused', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      const many = Array.from({ length: 1000 }, () => 'x')
      await t.throwsAsync<SlicenetError>(enforcer.exec(id, { argv: ['echo', ...many], env: {} }), {
        code: 'TOO_LARGE'
      })
      const file = { path: '/x', content: new Uint8Array(1024 * 1024), mode: 0o644 }
      await t.throwsAsync<SlicenetError>(enforcer.upload(id, [file]), { code: 'TOO_LARGE' })
      await t.throwsAsync<SlicenetError>(enforcer.setKeys(id, many), { code: 'TOO_LARGE' })
      for (const path of ['x', '/a/../b', '/a/', '/./b', '/']) {
        const upload = enforcer.upload(id, [{ path, content: new Uint8Array(), mode: 0o644 }])
        await t.throwsAsync<SlicenetError>(upload, { code: 'USAGE' }, path)
      }
    })
  })
}

function declareProgramTests(test: TestFn, harness: ContractHarness): void {
  test.serial('a launched program is seen from its start to its end, and its log is kept', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      await enforcer.launch(id, { argv: ['echo', 'hello', 'world'], env: {} })
      t.is(await collect(enforcer.logs(id, { follow: true })), 'hello world\n')
      const status = await enforcer.status(id)
      t.is(status?.state, 'exited')
      t.is(status?.exit?.exitCode, 0)
      t.true(Number.isSafeInteger(status?.exit?.exitedAt))
      await enforcer.launch(id, { argv: ['false'], env: {} })
      t.is(await collect(enforcer.logs(id, { follow: true })), '')
      t.is((await enforcer.status(id))?.exit?.exitCode, 1)
    })
  })

  test.serial('one program runs at a time, until it is stopped', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      const program = { argv: ['sleep', '1000'], env: {} }
      await enforcer.launch(id, program)
      t.is((await enforcer.status(id))?.state, 'running')
      await t.throwsAsync<SlicenetError>(enforcer.launch(id, program), { code: 'BUSY' })
      await enforcer.stopProgram(id)
      await enforcer.stopProgram(id)
      const status = await enforcer.status(id)
      t.is(status?.state, 'exited')
      t.is(status?.exit?.exitCode, 143)
      await enforcer.launch(id, program)
      t.is((await enforcer.status(id))?.state, 'running')
    })
  })

  test.serial('exec hands on input, output and exit code', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      const session = await enforcer.exec(id, { argv: ['cat'], env: {} })
      await session.write(Buffer.from('one '))
      await session.write(Buffer.from('two'))
      await session.write(undefined)
      t.deepEqual(await outputOf(session), { output: 'one two', exitCode: 0 })
      t.is((await outputOf(await enforcer.exec(id, { argv: ['false'], env: {} }))).exitCode, 1)
    })
  })

  test.serial('an attached program can be killed, twice', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      const session = await enforcer.exec(id, { argv: ['sleep', '1000'], env: {} })
      await session.kill()
      await session.kill()
      t.is(await session.exitCode, 143)
    })
  })

  test.serial('what was uploaded can be read inside', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      const path = '/opt/made/on/the/way/file'
      await enforcer.upload(id, [{ path, content: Buffer.from('first'), mode: 0o644 }])
      await enforcer.upload(id, [{ path, content: Buffer.from('second'), mode: 0o644 }])
      const session = await enforcer.exec(id, { argv: ['cat', path], env: {} })
      t.is((await outputOf(session)).output, 'second')
    })
  })

  test.serial('a program that runs ends with its vserver', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      await enforcer.launch(id, { argv: ['sleep', '1000'], env: {} })
      const session = await enforcer.exec(id, { argv: ['sleep', '1000'], env: {} })
      await enforcer.destroy(id)
      t.true((await session.exitCode) >= 128)
    })
  })
}

function declareChangeTests(test: TestFn, harness: ContractHarness): void {
  const sleep = { argv: ['sleep', '1000'], env: {} }

  test.serial('a signal reaches the launched program, and no other', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      await t.throwsAsync<SlicenetError>(enforcer.signal(id, 'SIGHUP'), { code: 'NOT_FOUND' })
      await enforcer.launch(id, sleep)
      const session = await enforcer.exec(id, sleep)
      await enforcer.signal(id, 'SIGCONT')
      t.is((await enforcer.status(id))?.state, 'running')
      await enforcer.signal(id, 'SIGKILL')
      await collect(enforcer.logs(id, { follow: true }))
      const status = await enforcer.status(id)
      t.deepEqual([status?.state, status?.exit?.exitCode], ['exited', 137])
      await t.throwsAsync<SlicenetError>(enforcer.signal(id, 'SIGKILL'), { code: 'NOT_FOUND' })
      await session.kill()
      t.is(await session.exitCode, 143)
    })
  })

  test.serial(
    'a program that fails is started again if that was asked for, until it is stopped',
    async (t) => {
      await withVserver(harness, async (enforcer, id) => {
        await enforcer.launch(id, { argv: ['false'], env: {}, restart: 'on-failure' })
        await until(async () => ((await enforcer.status(id))?.restarts ?? 0) > 0)
        await harness.restart()
        const after = harness.enforcer()
        const { restarts = 0 } = (await after.status(id)) ?? {}
        await until(async () => ((await after.status(id))?.restarts ?? 0) > restarts)
        await after.stopProgram(id)
        const stopped = await after.status(id)
        t.is(stopped?.state, 'exited')
        await new Promise((resolve) => setTimeout(resolve, 6000))
        t.deepEqual(await after.status(id), stopped)
      })
    }
  )

  test.serial('a program that ends well is started again only if that is to be so always', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      await enforcer.launch(id, { argv: ['echo', 'once'], env: {}, restart: 'on-failure' })
      t.is(await collect(enforcer.logs(id, { follow: true })), 'once\n')
      await new Promise((resolve) => setTimeout(resolve, 3000))
      t.is((await enforcer.status(id))?.restarts, undefined)
      await enforcer.launch(id, { argv: ['echo', 'again'], env: {}, restart: 'always' })
      const controller = new AbortController()
      let log = ''
      const following = async (): Promise<void> => {
        for await (const { bytes } of enforcer.logs(id, { follow: true, signal: controller.signal })) {
          log += Buffer.from(bytes).toString()
          if (log === 'again\nagain\n') return
        }
      }
      await following()
      t.is(log, 'again\nagain\n')
    })
  })

  test.serial('what is frozen stays so, across a restart of the monitor, until it is thawed', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      await enforcer.launch(id, sleep)
      await enforcer.freeze(id)
      await enforcer.freeze(id)
      const frozen = await enforcer.status(id)
      t.deepEqual([frozen?.state, frozen?.isFrozen], ['running', true])
      await harness.restart()
      const after = harness.enforcer()
      t.deepEqual(await after.status(id), frozen)
      const busy = { code: 'BUSY', message: /frozen/ }
      await t.throwsAsync<SlicenetError>(after.exec(id, { argv: ['echo'], env: {} }), busy)
      await t.throwsAsync<SlicenetError>(after.launch(id, sleep), busy)
      await t.throwsAsync<SlicenetError>(after.stopProgram(id), busy)
      await after.upload(id, [{ path: '/tmp/meanwhile', content: Buffer.from('kept'), mode: 0o644 }])
      await after.thaw(id)
      await after.thaw(id)
      t.is((await after.status(id))?.isFrozen, undefined)
      const session = await after.exec(id, { argv: ['cat', '/tmp/meanwhile'], env: {} })
      t.is((await outputOf(session)).output, 'kept')
      await after.stopProgram(id)
      t.is((await after.status(id))?.exit?.exitCode, 143)
    })
  })

  test.serial('what is frozen can be destroyed', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      await enforcer.launch(id, sleep)
      await enforcer.freeze(id)
      await enforcer.destroy(id)
      t.is(await enforcer.status(id), undefined)
    })
  })

  test.serial('a vserver is resized while its program runs', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      await enforcer.launch(id, sleep)
      const before = await enforcer.status(id)
      const resources = {
        ...SMALL,
        cpuMillis: 200,
        memoryBytes: 2 * SMALL.memoryBytes,
        diskBytes: 2 * SMALL.diskBytes,
        pids: 64
      }
      await enforcer.resize(id, resources)
      t.deepEqual(await enforcer.status(id), before)
      t.deepEqual(await enforcer.create(vserverSpec(harness.image(), { resources })), before)
      await t.throwsAsync<SlicenetError>(enforcer.create(vserverSpec(harness.image())), {
        code: 'VSERVER_FAILED'
      })
      await enforcer.resize(id, SMALL)
      await harness.restart()
      t.deepEqual(await harness.enforcer().create(vserverSpec(harness.image())), before)
    })
  })

  test.serial('a vserver is not cut below what it uses, nor by what is no amount', async (t) => {
    await withVserver(harness, async (enforcer, id) => {
      const content = new Uint8Array(100_000)
      for (const path of ['/opt/a', '/opt/b', '/opt/c', '/opt/d'])
        await enforcer.upload(id, [{ path, content, mode: 0o644 }])
      await harness.settle?.(id)
      await t.throwsAsync<SlicenetError>(enforcer.resize(id, { ...SMALL, pids: 0 }), { code: 'IN_USE' })
      await t.throwsAsync<SlicenetError>(enforcer.resize(id, { ...SMALL, diskBytes: 300_000 }), {
        code: 'IN_USE'
      })
      await t.throwsAsync<SlicenetError>(enforcer.resize(id, { ...SMALL, pids: -1 }), { code: 'USAGE' })
      await t.notThrowsAsync(enforcer.create(vserverSpec(harness.image())))
      t.is((await enforcer.list()).length, 1)
    })
  })
}

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { runDaemon } from '../../src/daemon/daemon.ts'
import { readEnvironment } from '../../src/daemon/environment.ts'
import { createKey } from '../../src/daemon/key-file.ts'
import { storeDirectory } from '../../src/daemon/store-care.ts'
import { DirectoryLock } from '../../src/store/directory-lock.ts'
import { serveControl } from './control-fixture.ts'

test('a second daemon says that one runs if it answers, and else who has the store', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'slicenet-second-'))
  t.teardown(() => rm(home, { recursive: true, force: true }))
  const environment = readEnvironment({ variables: { SLICENET_HOME: home, SLICENET_LOG: 'error' } })
  await createKey(environment.keyFile)
  const lock = await DirectoryLock.acquire(storeDirectory(environment))
  t.teardown(() => lock.release())
  const second = (socketPath: string): Promise<void> =>
    runDaemon({ environment: { ...environment, socketPath }, signal: new AbortController().signal })

  await t.throwsAsync(second(environment.socketPath), { code: 'STORE_LOCKED' })
  await using first = await serveControl({})
  await t.throwsAsync(second(first.socketPath), { code: 'DAEMON_RUNNING' })
})

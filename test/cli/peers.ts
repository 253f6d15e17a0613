/** Accounts with a key and a configuration each, and their daemons: real peers on loopback, in this process. */
import type { ExecutionContext } from 'ava'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runDaemon } from '../../src/daemon/daemon.ts'
import { startEmbedded } from '../../src/daemon/embedded.ts'
import { readEnvironment } from '../../src/daemon/environment.ts'
import { createKey, loadKey } from '../../src/daemon/key-file.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { cli, type Finished } from './cli-fixture.ts'

export interface Account {
  readonly home: string
  readonly principal: string
  readonly key: SigningKey
  /** Runs a command with `--json`. */
  run(...argv: readonly string[]): Promise<Finished>
  /** Replaces what the configuration says beside where the daemon listens. */
  configure(yaml: string): Promise<void>
  /** Resolves when it is ready; gives what ends it, which happens at the end of the test anyway. */
  daemon(bootstrap?: readonly string[]): Promise<() => Promise<void>>
}

export async function account(t: ExecutionContext, yaml = ''): Promise<Account> {
  const home = await mkdtemp(join(tmpdir(), 'slicenet-account-'))
  t.teardown(() => rm(home, { recursive: true, force: true }))
  const environment = readEnvironment({ variables: { SLICENET_HOME: home, SLICENET_LOG: 'error' } })
  const { principal } = await createKey(environment.keyFile)
  const configure = async (more: string): Promise<void> =>
    writeFile(
      environment.configFile,
      `name: test\nlisten: [/ip4/127.0.0.1/tcp/0]\nbootstrap: []\norganisation: example.org\n${more}`
    )
  await configure(yaml)
  return {
    home,
    principal,
    key: await loadKey(environment.keyFile),
    run: async (...argv) =>
      cli([...argv, '--json'], { home, services: { startEmbedded }, variables: { SLICENET_LOG: 'error' } }),
    configure,
    async daemon(bootstrap = []) {
      const ending = new AbortController()
      const ready = Promise.withResolvers<void>()
      const ended = runDaemon({
        environment,
        bootstrap,
        signal: ending.signal,
        onReady: () => ready.resolve()
      })
      const stop = async (): Promise<void> => {
        ending.abort()
        await ended
      }
      t.teardown(stop)
      await Promise.race([ready.promise, ended])
      return stop
    }
  }
}

/** The code of a command that failed. */
export function codeOf({ json }: Finished): unknown {
  return (json()['error'] as { code?: unknown } | undefined)?.code
}

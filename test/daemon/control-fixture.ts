/** A control socket in a directory of its own, with handlers that a test chooses. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLogger } from '../../src/base/log.ts'
import type { ControlMethods } from '../../src/daemon/control-client.ts'
import { controlProtocol } from '../../src/daemon/control-protocol.ts'
import { createControlServer } from '../../src/daemon/control-server.ts'
import type { Handlers } from '../../src/protocol/method.ts'

export function fakeHandlers(handlers: Partial<Handlers<ControlMethods>>): Handlers<ControlMethods> {
  const others = Object.keys(controlProtocol.methods).map((method) => [
    method,
    async () => {
      throw new Error(`${method} was not expected`)
    }
  ])
  return { ...(Object.fromEntries(others) as Handlers<ControlMethods>), ...handlers }
}

export interface ControlFixture extends AsyncDisposable {
  readonly directory: string
  readonly socketPath: string
}

export async function serveControl(handlers: Partial<Handlers<ControlMethods>>): Promise<ControlFixture> {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-control-'))
  const socketPath = join(directory, 'control.sock')
  const server = createControlServer(
    { logger: silentLogger },
    { socketPath, handlers: fakeHandlers(handlers) }
  )
  await server.start()
  return {
    directory,
    socketPath,
    async [Symbol.asyncDispose]() {
      await server.stop()
      await rm(directory, { recursive: true, force: true })
    }
  }
}

/**
 * An enforcer with the node's real network in a process of its own, in the network namespace that it is started in. One JSON
 * request a line on standard input, one answer a line on standard output. Its only argument is a JSON object, `HostInit`.
 */
import { createInterface } from 'node:readline'
import { join } from 'node:path'
import { systemClock as clock } from '../../../src/base/clock.ts'
import { silentLogger } from '../../../src/base/log.ts'
import { nodeUidBase } from '../../../src/enforce/id-ranges.ts'
import { ImageStore } from '../../../src/enforce/image-store.ts'
import { createNodeNetwork } from '../../../src/enforce/network/node-network.ts'
import { OciEnforcer } from '../../../src/enforce/oci-enforcer.ts'
import type { ProgramSpec, VserverSpec } from '../../../src/enforce/enforcer.ts'
import { outputOf } from '../../enforce/enforcer-contract.ts'

export interface HostInit {
  readonly directory: string
  readonly nodeShort: string
  readonly imagesDirectory: string
}

export type HostRequest =
  | { readonly op: 'start' | 'stop' }
  | { readonly op: 'create'; readonly spec: VserverSpec }
  | { readonly op: 'status'; readonly id: string }
  | { readonly op: 'exec' | 'launch'; readonly id: string; readonly program: ProgramSpec }
  | { readonly op: 'setKeys'; readonly id: string; readonly keys: readonly string[] }

/** Beyond the indexes that other nodes of one machine have. */
const UID_INDEX = 122
const GIBIBYTE = 1024 ** 3
const MEGABIT = 1_000_000

const init = JSON.parse(process.argv[2] ?? '{}') as HostInit
const { directory, imagesDirectory, nodeShort } = init
/** What it makes on the uplink goes with the namespace. */
const network = createNodeNetwork(
  { clock, logger: silentLogger },
  {
    uplinks: [{ rootBps: 1000 * MEGABIT, nodeBps: MEGABIT }],
    reservedPorts: [],
    // Those that the test's hosts have.
    allowedPrivateRanges: ['198.18.0.0/15', '2001:db8::/32'],
    stateDirectory: join(directory, 'network')
  }
)
const enforcer = new OciEnforcer(
  { clock, logger: silentLogger, images: new ImageStore({ clock }, { directory: imagesDirectory }), network },
  {
    stateDirectory: join(directory, 'state'),
    runDirectory: join(directory, 'run'),
    nodeShort,
    uidBase: nodeUidBase(UID_INDEX),
    volumeBytes: 2 * GIBIBYTE
  }
)

async function answer(request: HostRequest): Promise<unknown> {
  switch (request.op) {
    case 'start':
      return enforcer.start()
    case 'stop':
      for (const { id } of await enforcer.list()) await enforcer.destroy(id)
      await enforcer.stop()
      return enforcer.close()
    case 'create':
      return enforcer.create(request.spec)
    case 'status':
      return enforcer.status(request.id)
    case 'launch':
      return enforcer.launch(request.id, request.program)
    case 'setKeys':
      return enforcer.setKeys(request.id, request.keys)
    case 'exec': {
      const session = await enforcer.exec(request.id, request.program)
      await session.write(undefined)
      return outputOf(session)
    }
  }
  return undefined
}

for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify({ result: await answer(JSON.parse(line) as HostRequest) }))
  } catch (error) {
    const { code, message } = error as Error & { code?: string }
    console.log(JSON.stringify({ error: { code, message } }))
  }
}

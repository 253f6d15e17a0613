/**
 * A node in a process of its own, with everything between a demand and a running program: node manager, journal, enforcer
 * and network, in the network namespace that it is started in. One JSON request a line on standard input, one answer a line
 * on standard output. Its only argument is a JSON object, `NodeMachineInit`.
 */
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { join } from 'node:path'
import { systemClock as clock } from '../../src/base/clock.ts'
import { run } from '../../src/base/host-program.ts'
import { createLogger } from '../../src/base/log.ts'
import { nodeUidBase } from '../../src/enforce/id-ranges.ts'
import { ImageStore } from '../../src/enforce/image-store.ts'
import { createNodeNetwork } from '../../src/enforce/network/node-network.ts'
import { OCI_RUNTIMES } from '../../src/enforce/oci-runtime.ts'
import { OciEnforcer } from '../../src/enforce/oci-enforcer.ts'
import type { VserverRecord } from '../../src/enforce/vserver-records.ts'
import { NodeManager } from '../../src/node/node-manager.ts'
import { nodeHandlers } from '../../src/node/node-service.ts'
import { nodeProtocol } from '../../src/protocol/node-protocol.ts'
import { createStore } from '../../src/store/disk-store.ts'
import { FraudWatch } from '../../src/ticket/fraud-watch.ts'
import { leaseObject } from '../../src/ticket/lease.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { HOUR, delegate, demand, issue, makeKey } from '../ticket/fixtures.ts'
import { withBareRuntime, type BareRun } from './bare-runtime.ts'

export interface NodeMachineInit {
  /** Of this node alone; state is kept and found again there. */
  readonly directory: string
  readonly runDirectory: string
  readonly nodeShort: string
  readonly imagesDirectory: string
  readonly image: string
  readonly resources: Resources
  /** The program that every vserver runs. */
  readonly argv: readonly string[]
  /** Whether it logs to standard error what it does. */
  readonly logs: boolean
}

/** What the node's vservers take, in bytes. */
export interface Taken {
  /** Of the file system for the disks of vservers. */
  readonly volume: number
  /** Of everything else that is kept on disk for vservers and programs. */
  readonly records: number
}

/** Beyond the indexes that nodes of one machine, the bare runtime and tests have. */
const UID_INDEX = 121
const VOLUME_BYTES = 32 * 1024 ** 3
const MEGABIT = 1_000_000
const FIRST_PORT = 20_000
const PORTS = 8000
/** What is delegated, and what the node has, in vservers: the real machine is not what is measured. */
const VSERVERS = 1000

const init = JSON.parse(process.argv[2] ?? '{}') as NodeMachineInit
const { directory, image, resources } = init
const logger = createLogger({
  // At the level `info` the maker tells what each step took.
  level: init.logs ? 'info' : 'error',
  write: (line) => process.stderr.write(line),
  clock
})
const capacity = Object.fromEntries(
  Object.entries(resources).map(([name, amount]) => [name, amount * VSERVERS])
) as unknown as Resources

const [node, agent, holder] = [makeKey(), makeKey(), makeKey()]
const store = createStore({ clock, logger }, { directory: join(directory, 'store') })
const enforcer = new OciEnforcer(
  {
    clock,
    logger,
    images: new ImageStore({ clock }, { directory: init.imagesDirectory }),
    network: createNodeNetwork(
      { clock, logger },
      {
        uplinks: [{ rootBps: 10_000 * MEGABIT, nodeBps: MEGABIT }],
        reservedPorts: [],
        allowedPrivateRanges: [],
        stateDirectory: join(directory, 'network')
      }
    )
  },
  {
    stateDirectory: join(directory, 'enforce'),
    runDirectory: init.runDirectory,
    nodeShort: init.nodeShort,
    uidBase: nodeUidBase(UID_INDEX),
    volumeBytes: VOLUME_BYTES,
    spares: 1
  }
)
const watch = new FraudWatch()
const manager = new NodeManager(
  {
    key: node,
    store,
    enforcer,
    clock,
    logger,
    delegations: { fault: () => undefined, isAgent: () => true, freed: () => {} },
    observe: (object) => watch.observe(object)
  },
  { capacity, address: () => '198.18.0.1', epoch: 1 }
)
const call = localCaller(nodeProtocol, nodeHandlers({ manager, enforcer }), holder.principal)

const term = { notBefore: clock.now() - HOUR, notAfter: clock.now() + 24 * HOUR }
const delegation = delegate(node, agent, {
  ...term,
  resources: capacity,
  ports: [{ protocol: 'tcp', first: FIRST_PORT, last: FIRST_PORT + PORTS - 1 }]
})
let seq = 0

export interface Made {
  readonly vserver: string
  readonly lease: string
  /** From the demand in hand to the lease written down, and from there to the program running. */
  readonly redeemMs: number
  readonly launchMs: number
}

/** Takes the way of a peer's call, codecs included, from the demand to the program running. */
async function create(): Promise<Made> {
  const port = FIRST_PORT + (++seq % PORTS)
  const ports = [{ protocol: 'tcp' as const, first: port, last: port }]
  const until = { redeemBefore: term.notAfter, notBefore: term.notBefore, notAfter: term.notAfter - 1 }
  const ticket = issue(delegation, agent, holder, { ...until, seq, slice: 'bench', resources, ports })
  const redeem = demand(ticket, holder, { ...term, seq, image })
  const began = performance.now()
  const request = { redeem: redeem.bytes, delegation: delegation.bytes, tickets: [ticket.bytes] }
  const answer = await call('newLease', request)
  if (answer.lease === undefined) throw new Error('a good demand was refused')
  const lease = leaseObject.open(answer.lease)
  const redeemed = performance.now()
  await call('launch', { lease: lease.id, program: { argv: [...init.argv], env: {} } })
  const running = performance.now()
  return {
    vserver: lease.body.vserver,
    lease: lease.id,
    redeemMs: redeemed - began,
    launchMs: running - redeemed
  }
}

/** Milliseconds until nothing of the vserver is left. */
async function destroy(lease: string): Promise<number> {
  const record = manager.table.current(lease)
  if (record === undefined) throw new Error(`there is no lease ${lease}`)
  const began = performance.now()
  await manager.end(record, 'it was measured')
  return performance.now() - began
}

async function taken(): Promise<Taken> {
  const volume = join(directory, 'enforce', 'volume')
  await run('btrfs', ['filesystem', 'sync', volume])
  const table = await run('btrfs', ['filesystem', 'df', '--raw', volume])
  // What is kept in reserve is no use of anybody's.
  const used = [...table.matchAll(/^(?:Data|System|Metadata).*used=(\d+)$/gm)].map(([, bytes]) =>
    Number(bytes)
  )
  const words = ['--summarize', '--one-file-system', '--block-size=1', '--exclude=volume.img', directory]
  const records = Number.parseInt(await run('du', words), 10)
  return { volume: used.reduce((sum, bytes) => sum + bytes, 0), records }
}

/** Bytes of the vserver's launched program that are in no other's memory too. */
async function programBytes(vserver: string): Promise<number> {
  const record = await readFile(join(directory, 'enforce', 'vservers', `${vserver}.json`), 'utf8')
  const { container } = JSON.parse(record) as VserverRecord
  const pid = await readFile(join(directory, 'enforce', 'programs', container, 'pid'), 'utf8')
  const rollup = await readFile(`/proc/${pid.trim()}/smaps_rollup`, 'utf8')
  const own = [...rollup.matchAll(/^Private_\w+:\s+(\d+) kB$/gm)].map(([, kib]) => Number(kib) * 1024)
  return own.reduce((sum, bytes) => sum + bytes, 0)
}

let bare: { readonly run: BareRun; readonly close: () => Promise<void> } | undefined

/** Milliseconds that the OCI runtime takes alone for the same container. */
async function runBare(): Promise<number> {
  bare ??= await openBare()
  return bare.run()
}

async function openBare(): Promise<NonNullable<typeof bare>> {
  const { attributes } = await enforcer.capacity()
  const runtime = OCI_RUNTIMES.find((name) => attributes['monitor'] === `oci/${name}`)
  if (runtime === undefined) throw new Error('the node runs no OCI runtime')
  const spec = { id: 'bare', slice: 'bench', image, resources, ports: [], rights: [], keys: [] }
  const { imagesDirectory } = init
  const ready = Promise.withResolvers<BareRun>()
  const over = Promise.withResolvers<void>()
  const held = withBareRuntime({ runtime, imagesDirectory, spec }, async (run) => {
    ready.resolve(run)
    await over.promise
  })
  held.catch((error: unknown) => ready.reject(error))
  return {
    run: await ready.promise,
    close: async () => {
      over.resolve()
      await held
    }
  }
}

async function start(): Promise<void> {
  await enforcer.start()
  await store.start()
  await manager.start()
}

/** Takes everything away, also what an earlier process of this node made. */
async function stop(): Promise<void> {
  await bare?.close()
  await manager.stop()
  await enforcer.start()
  for (const { id } of await enforcer.list()) await enforcer.destroy(id)
  await enforcer.stop()
  await enforcer.close()
  await store.stop()
}

interface Request {
  readonly op: keyof typeof answers
  readonly lease?: string
  readonly vserver?: string
}

const answers = {
  start,
  create,
  destroy: async ({ lease = '' }: Request) => destroy(lease),
  bare: runBare,
  taken,
  programBytes: async ({ vserver = '' }: Request) => programBytes(vserver),
  stop
} satisfies Record<string, (request: Request) => Promise<unknown>>

for await (const line of createInterface({ input: process.stdin })) {
  try {
    const request = JSON.parse(line) as Request
    console.log(JSON.stringify({ result: (await answers[request.op](request)) ?? null }))
  } catch (error) {
    const { code, stack } = error as Error & { code?: string }
    console.log(JSON.stringify({ error: { code, message: stack } }))
  }
}

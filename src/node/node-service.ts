/** What a node answers to peers: the node protocol over the node manager and the monitor of virtual machines. */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Enforcer, ExecSession, ProgramSpec } from '../enforce/enforcer.ts'
import type { Call, Handlers } from '../protocol/method.ts'
import { CHUNK_BYTES_MAX, type ExecInput, type nodeProtocol } from '../protocol/node-protocol.ts'
import type { Principal } from '../ticket/principal.ts'
import type { LeaseRecord } from './lease-table.ts'
import type { NodeManager } from './node-manager.ts'

type NodeHandlers = Handlers<typeof nodeProtocol.methods>

export function nodeHandlers(components: {
  readonly manager: NodeManager
  readonly enforcer: Enforcer
}): NodeHandlers {
  return { ...leaseHandlers(components), ...programHandlers(components), ...keyHandlers(components) }
}

type LeaseMethod =
  | 'newLease'
  | 'renewLease'
  | 'settleTickets'
  | 'revoke'
  | 'deleteLease'
  | 'status'
  | 'counters'

type ProgramMethod = 'upload' | 'launch' | 'stop' | 'signal' | 'freeze' | 'thaw' | 'exec' | 'logs'

type Components = { readonly manager: NodeManager; readonly enforcer: Enforcer }

function leaseHandlers({ manager, enforcer }: Components): Pick<NodeHandlers, LeaseMethod> {
  return {
    async newLease(params, { principal }) {
      const outcome = await manager.redemption.redeem(params, caller(principal))
      if ('refusal' in outcome) return { refusal: outcome.refusal.bytes }
      manager.changed()
      return { lease: outcome.lease.bytes }
    },
    async renewLease(params, { principal }) {
      const outcome = await manager.redemption.renew(params, caller(principal))
      return 'refusal' in outcome ? { refusal: outcome.refusal.bytes } : { lease: outcome.lease.bytes }
    },
    async revoke({ revocation, ...chain }) {
      await manager.revoke(revocation, chain)
      return {}
    },
    async settleTickets({ tickets, cancel }, { principal }) {
      const issuer = caller(principal)
      const states = await Promise.all(tickets.map((bytes) => manager.settle(bytes, issuer, cancel)))
      return { states }
    },
    async deleteLease({ lease, surrender }, { principal }) {
      await manager.surrender(lease, surrender, caller(principal))
      return {}
    },
    async status({ lease, usage: isWanted = true }, { principal }) {
      const { lease: held } = manager.held(lease, principal)
      const status = await enforcer.status(held.body.vserver)
      if (status === undefined) return { state: 'failed', notAfter: held.body.notAfter }
      const counts = isWanted && status.state !== 'failed'
      const usage = counts ? await enforcer.usage(held.body.vserver) : undefined
      return {
        state: status.state,
        notAfter: held.body.notAfter,
        ...(status.exit === undefined ? {} : { exitCode: status.exit.exitCode }),
        ...(status.restarts === undefined ? {} : { restarts: status.restarts }),
        ...(status.isFrozen === true ? { frozen: true as const } : {}),
        ...(status.isEgressNarrowed === true ? { egressNarrowed: true as const } : {}),
        ...(usage === undefined ? {} : { usage: { ...usage } })
      }
    },
    async counters({ lease }, { principal }) {
      return { dropped: await enforcer.dropped(vserverOf(manager.held(lease, principal))) }
    }
  }
}

function programHandlers({ manager, enforcer }: Components): Pick<NodeHandlers, ProgramMethod> {
  return {
    async upload({ lease, files }, { principal }) {
      await enforcer.upload(vserverOf(manager.held(lease, principal)), files)
      return {}
    },
    async launch({ lease, program }, { principal }) {
      const record = manager.held(lease, principal)
      await enforcer.launch(vserverOf(record), withSurroundings(program, record))
      return {}
    },
    async stop({ lease }, { principal }) {
      await enforcer.stopProgram(vserverOf(manager.held(lease, principal)))
      return {}
    },
    async signal({ lease, signal }, { principal }) {
      await enforcer.signal(vserverOf(manager.held(lease, principal)), signal)
      return {}
    },
    async freeze({ lease }, { principal }) {
      await enforcer.freeze(vserverOf(manager.held(lease, principal)))
      return {}
    },
    async thaw({ lease }, { principal }) {
      await enforcer.thaw(vserverOf(manager.held(lease, principal)))
      return {}
    },
    async exec({ lease, program, ...options }, call) {
      const record = manager.held(lease, call.principal)
      const started = enforcer.exec(vserverOf(record), withSurroundings(program, record), options)
      return { exitCode: await attach(await started, call) }
    },
    async logs({ lease, follow }, call) {
      const id = vserverOf(manager.held(lease, call.principal))
      for await (const { stream, time, bytes } of enforcer.logs(id, { follow, signal: call.signal })) {
        for (const part of parts(bytes)) await call.emit({ stream, time, bytes: part })
      }
      return {}
    }
  }
}

function keyHandlers({ manager, enforcer }: Components): Pick<NodeHandlers, 'addKey' | 'delKey' | 'getKeys'> {
  const change = async (record: LeaseRecord, keys: readonly string[]): Promise<Record<string, never>> => {
    if (keys.length > LIMITS.keysPerLeaseMax) {
      throw new SlicenetError('QUOTA_EXCEEDED', `a lease has at most ${LIMITS.keysPerLeaseMax} keys`)
    }
    await manager.setKeys(record, keys)
    await enforcer.setKeys(vserverOf(record), keys)
    return {}
  }
  return {
    async addKey({ lease, key }, { principal }) {
      const record = manager.held(lease, principal)
      return change(record, [...record.keys.filter((known) => known !== key), key])
    },
    async delKey({ lease, key }, { principal }) {
      const record = manager.held(lease, principal)
      return change(
        record,
        record.keys.filter((known) => known !== key)
      )
    },
    async getKeys({ lease }, { principal }) {
      return { keys: [...manager.held(lease, principal).keys] }
    }
  }
}

function caller(principal: Principal | undefined): Principal {
  if (principal === undefined) throw new TypeError('a node answers to principals only')
  return principal
}

function vserverOf(record: LeaseRecord): string {
  return record.lease.body.vserver
}

/** What every program of a slice finds in its environment; its own settings win. */
function withSurroundings(program: ProgramSpec, { lease }: LeaseRecord): ProgramSpec {
  const { slice, issuer, address, ports } = lease.body
  const tcp = ports.find(({ protocol }) => protocol === 'tcp')
  return {
    ...program,
    env: {
      SLICENET_SLICE: slice,
      SLICENET_NODE: issuer,
      SLICENET_ADDRESS: address,
      SLICENET_PORTS: ports.map(({ protocol, first, last }) => `${protocol}/${first}-${last}`).join(' '),
      ...(tcp === undefined ? {} : { SLICENET_PORT: String(tcp.first) }),
      ...program.env
    }
  }
}

/** Joins an exec session to a call; when either side goes away, so does the other. */
async function attach(
  session: ExecSession,
  call: Call<{ stream: 'stdout' | 'stderr'; bytes: Uint8Array }, ExecInput>
): Promise<number> {
  const kill = (): void => void session.kill()
  call.signal.addEventListener('abort', kill, { once: true })
  try {
    if (call.signal.aborted) await session.kill()
    const feeding = (async () => {
      for await (const { bytes, terminal } of call.input) {
        if (terminal !== undefined) session.resizeTerminal(terminal)
        if (bytes !== undefined || terminal === undefined) await session.write(bytes)
        if (bytes === undefined && terminal === undefined) return
      }
      await session.write(undefined)
    })()
    // A program that ends without reading its input, or a caller gone: the output and exit code tell.
    feeding.catch(() => {})
    for await (const { stream, bytes } of session.output) {
      for (const part of parts(bytes)) await call.emit({ stream, bytes: part })
    }
    return await session.exitCode
  } finally {
    call.signal.removeEventListener('abort', kill)
    await session.kill()
  }
}

function* parts(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES_MAX) yield bytes.subarray(at, at + CHUNK_BYTES_MAX)
}

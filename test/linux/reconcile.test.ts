/** What a node does at its start with real vservers: what runs without a lease goes, what is leased and gone comes back. */
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { systemClock as clock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { NodeManager } from '../../src/node/node-manager.ts'
import { nodeHandlers } from '../../src/node/node-service.ts'
import type { Caller } from '../../src/protocol/method.ts'
import { nodeProtocol } from '../../src/protocol/node-protocol.ts'
import { leaseObject, type Lease } from '../../src/ticket/lease.ts'
import { addResources } from '../../src/ticket/resources.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { FaultyStore } from '../base/faulty-store.ts'
import { collect, SMALL, vserverSpec } from '../enforce/enforcer-contract.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { HOUR, delegate, demand, issue, makeKey } from '../ticket/fixtures.ts'
import { OciNode } from './oci-node.ts'

const [key, agent, holder] = [makeKey(), makeKey(), makeKey()]
const capacity = [1, 2, 3, 4, 5].reduce((sum) => addResources(sum, SMALL), SMALL)
const term = { notBefore: clock.now() - HOUR, notAfter: clock.now() + 24 * HOUR }
const delegation = delegate(key, agent, { ...term, resources: capacity, ports: [] })
let node: OciNode
let store: FaultyStore
let manager: NodeManager
let call: Caller<typeof nodeProtocol.methods>
let seq = 0

/** What a node's daemon does at its start, with what is in the store and on the machine. */
async function startManager(): Promise<void> {
  const { enforcer } = node
  manager = new NodeManager(
    {
      key,
      store,
      enforcer,
      clock,
      logger: silentLogger,
      delegations: { fault: () => undefined, isAgent: () => true, freed: () => {} },
      observe: () => []
    },
    { capacity, address: () => '198.18.0.1', epoch: 1 }
  )
  await manager.start()
  call = localCaller(nodeProtocol, nodeHandlers({ manager, enforcer }), holder.principal)
}

async function leased(image = node.image): Promise<Signed<Lease>> {
  const until = { redeemBefore: term.notAfter, notBefore: term.notBefore, notAfter: term.notAfter - 1 }
  const ticket = issue(delegation, agent, holder, {
    ...until,
    seq: ++seq,
    slice: `s${seq}`,
    resources: SMALL,
    ports: []
  })
  const redeem = demand(ticket, holder, { ...term, seq, image })
  const request = { redeem: redeem.bytes, delegation: delegation.bytes, tickets: [ticket.bytes] }
  const { lease } = await call('newLease', request)
  if (lease === undefined) throw new Error('a good demand was refused')
  return leaseObject.open(lease)
}

async function sh(vserver: string, script: string): Promise<void> {
  const session = await node.enforcer.exec(vserver, { argv: ['sh', '-c', script], env: {} })
  await session.write(undefined)
  await session.exitCode
}

const log = async (vserver: string): Promise<string> => collect(node.enforcer.logs(vserver))

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if (await condition()) return
    await delay(50)
  }
  throw new Error('it did not come to be')
}

test.before(async () => {
  node = await OciNode.start()
  store = await FaultyStore.open()
  await startManager()
})

test.after.always(async () => {
  await manager?.stop()
  await node?.stop()
})

test.serial(
  'after a start what is leased runs, with its program, and what is not leased is gone',
  async (t) => {
    const { enforcer } = node
    const [killed, ended, whole] = [await leased(), await leased(), await leased()]
    const [one, two, three] = [killed, ended, whole].map(({ body }) => body.vserver) as [
      string,
      string,
      string
    ]
    const argv = ['sh', '-c', 'echo "$WORD in $(pwd) as $(id -u)"; exec sleep 1000']
    await sh(one, 'mkdir /work; echo kept > /work/file')
    const program = { argv, env: { WORD: 'hello' }, cwd: '/work', user: '7:7' }
    await call('launch', { lease: killed.id, program })
    // This one ended by itself: it is not begun again.
    await call('launch', { lease: ended.id, program: { argv: ['sh', '-c', 'echo once'], env: {} } })
    await until(async () => (await enforcer.status(two))?.state === 'exited' && (await log(one)) !== '')
    const untouched = await enforcer.status(three)
    await enforcer.create(vserverSpec(node.image, { id: 'stray' }))
    await enforcer.launch('stray', { argv: ['sleep', '1000'], env: {} })

    await manager.stop()
    const pids = await Promise.all([one, two].map(async (id) => (await enforcer.status(id))!.pid!))
    await enforcer.stop()
    for (const pid of pids) process.kill(pid, 'SIGKILL')
    await node.restart()
    await until(async () => {
      const states = await Promise.all([one, two].map((id) => node.enforcer.status(id)))
      return states.every((status) => status?.state === 'failed')
    })
    t.true((await node.remains('stray')).processes!.length > 0)

    await startManager()
    await until(async () => (await node.enforcer.status('stray')) === undefined)
    for (const [kind, found] of Object.entries(await node.remains('stray'))) t.deepEqual(found, [], kind)
    await until(async () => (await log(one)).split('\n').length === 3)
    t.is(await log(one), 'hello in /work as 7\nhello in /work as 7\n')
    const again = await call('status', { lease: killed.id, usage: false })
    t.deepEqual([again.state, again.restarts], ['running', 1])
    t.is(await node.readInside(one, 'work/file'), 'kept\n')
    t.is((await call('status', { lease: ended.id, usage: false })).exitCode, 0)
    t.is(await log(two), 'once\n')
    t.deepEqual(await node.enforcer.status(three), untouched)
  }
)

test.serial(
  'a leased vserver that cannot be made again is reported as failed, and comes back when it can',
  async (t) => {
    const lease = await leased()
    const id = lease.body.vserver
    const { pid } = (await node.enforcer.status(id))!
    await manager.stop()
    process.kill(pid!, 'SIGKILL')
    await until(async () => (await node.enforcer.status(id))?.state === 'failed')
    const open = node.images.open.bind(node.images)
    node.images.open = async () => {
      throw new Error('the disk of the images is gone')
    }
    await startManager()
    t.is((await call('status', { lease: lease.id, usage: false })).state, 'failed')
    node.images.open = open
    await manager.stop()
    await startManager()
    t.is((await call('status', { lease: lease.id, usage: false })).state, 'created')
  }
)

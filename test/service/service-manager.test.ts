import test from 'ava'
import type { Grant } from '../../src/protocol/agent-protocol.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
import { SlicenetError } from '../../src/base/errors.ts'
import { settle } from '../base/manual-clock.ts'
import { HOUR, amounts } from '../ticket/fixtures.ts'
import { RETRY_MS, overlay, slice, type Overlay } from './overlay.ts'

/** Nothing is held anywhere: no lease, no virtual machine, and the agents may grant all they could. */
async function nothingHeld(one: Overlay): Promise<boolean> {
  const running = (await Promise.all(one.nodes.map(({ enforcer }) => enforcer.running()))).flat()
  const all = amounts(10 / one.agents.length).memoryBytes
  const available = await one.available()
  return (
    one.leases().length === 0 &&
    running.length === 0 &&
    available.every(({ memoryBytes }) => memoryBytes === all)
  )
}

function failCreates({ nodes }: Overlay, name: string): void {
  for (const [index, { enforcer }] of nodes.entries()) {
    if (name === `n${index}`) enforcer.createsToFail = Infinity
  }
}

async function rows(one: Overlay): Promise<number> {
  const tables = ['slices', 'slice-members', 'slice-files']
  const read = await Promise.all(tables.map((table) => Array.fromAsync(one.store.disk.iterate(table))))
  return read.flat().length
}

test('a slice is made in two steps, and every member learns where the others are', async (t) => {
  const one = await overlay({ nodes: 4, agents: 2 })
  const steps: string[] = []
  const view = await one.services.create(slice(), { onProgress: ({ step }) => void steps.push(step) })
  t.is(view.state, 'active')
  t.is(new Set(view.members.map(({ node }) => node)).size, 3)
  t.true(view.members.every(({ state }) => state === 'running'))
  t.deepEqual(steps, ['find', 'tickets', 'redeem', 'upload', 'launch'])
  t.is(
    one.calls.findLastIndex((call) => call.startsWith('newLease')),
    2,
    'all leases before any program'
  )
  t.deepEqual(
    (await one.services.list()).map(({ name }) => name),
    ['mesh']
  )
})

test('a deleted slice leaves nothing on nodes, with agents or on the disk', async (t) => {
  const one = await overlay({ nodes: 3, agents: 2 })
  await one.services.create(slice())
  t.false(await nothingHeld(one))
  t.deepEqual(await one.services.delete('mesh'), { deleted: 3, unreachable: [] })
  t.true(await nothingHeld(one))
  t.is(await rows(one), 0)
  await t.throwsAsync(one.services.show('mesh'), { code: 'NOT_FOUND' })
  t.is((await one.services.create(slice())).state, 'active', 'its name is free again')
})

test('a name is taken once, also while it is being made or deleted', async (t) => {
  const one = await overlay({ nodes: 3, agents: 1 })
  const first = one.services.create(slice())
  await t.throwsAsync(one.services.create(slice()), { code: 'NAME_TAKEN' })
  await t.throwsAsync(async () => one.services.delete('mesh'), { instanceOf: SlicenetError })
  await first
  await t.throwsAsync(one.services.create(slice()), { code: 'NAME_TAKEN' })
  t.is(one.leases().length, 3)
})

test('slices that are made at the same time each get nodes that match their own query', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  const make = async (name: string): Promise<readonly string[]> => {
    const { members } = await one.services.create(slice({ name, count: 1, query: `node.name == "${name}"` }))
    return members.map(({ nodeName }) => nodeName)
  }
  t.deepEqual(await Promise.all([make('n0'), make('n1')]), [['n0'], ['n1']])
})

test('NO_MATCH says for every node which clauses failed', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  const error = await t.throwsAsync<SlicenetError>(
    one.services.create(slice({ query: 'node.region == "eu" && node.name == "n7"' })),
    { code: 'NO_MATCH' }
  )
  const nodes = (error.details?.['nodes'] ?? []) as { name: string; failed: string[] }[]
  t.deepEqual(
    nodes.map(({ name, failed }) => [name, failed]),
    [
      ['n0', ['node.name == "n7" (it is "n0")']],
      ['n1', ['node.name == "n7" (it is "n1")']]
    ]
  )
  await t.throwsAsync(one.services.create(slice({ query: 'node.' })), { code: 'QUERY_INVALID' })
  await t.throwsAsync(one.services.create(slice({ image: 'plan9' })), { code: 'IMAGE_MISSING' })
  t.is(await rows(one), 0)
})

test('a slice larger than the overlay is refused at once, with nothing asked of anybody', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  await t.throwsAsync(one.services.create(slice({ count: 3 })), {
    code: 'NO_MATCH',
    message: /2 nodes match where 3/
  })
  t.deepEqual(one.calls, [])
  t.true(await nothingHeld(one))
})

test('a node that refuses is replaced by another', async (t) => {
  const one = await overlay({ nodes: 4, agents: 2 })
  failCreates(one, 'n0')
  const view = await one.services.create(slice())
  t.is(view.state, 'active')
  t.deepEqual(view.members.map(({ nodeName }) => nodeName).toSorted(), ['n1', 'n2', 'n3'])
  await one.services.delete('mesh')
  t.true(await nothingHeld(one), 'the refused ticket was given back')
})

test('below the minimum everything is given back, and no virtual machine is made in vain', async (t) => {
  const one = await overlay({ nodes: 3, agents: 1 })
  // One node whose agent has nothing left of it.
  const other = { ...slice({ name: 'other', count: 1, query: 'node.name == "n2"', resources: amounts(10) }) }
  await one.services.create(other)
  const made = one.nodes.map(({ enforcer }) => enforcer.created.length)
  await t.throwsAsync(one.services.create(slice()), { code: 'NO_MATCH' })
  t.deepEqual(
    one.nodes.map(({ enforcer }) => enforcer.created.length),
    made
  )
  t.is(one.leases().length, 1)
  await one.services.delete('other')
  t.true(await nothingHeld(one))
})

test('when too many nodes refuse, everything is given back with the reason', async (t) => {
  const one = await overlay({ nodes: 3, agents: 2 })
  failCreates(one, 'n0')
  await t.throwsAsync(one.services.create(slice()), {
    code: 'VSERVER_FAILED',
    message: /2 of 3 members could be had/
  })
  t.true(await nothingHeld(one))
  t.is(await rows(one), 0)
})

test('with fewer members than wanted and not fewer than the minimum a slice is partial', async (t) => {
  const one = await overlay({ nodes: 3, agents: 2 })
  failCreates(one, 'n0')
  const view = await one.services.create(slice({ minimum: 2 }))
  t.is(view.state, 'partial')
  t.is(view.members.length, 2)
})

test('a best effort of nothing is no slice', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  failCreates(one, 'n0')
  await t.throwsAsync(one.services.create(slice({ count: 1, minimum: 0 })), { code: 'VSERVER_FAILED' })
  t.true(await nothingHeld(one))
})

test('a lost reply is asked for again and brings the same lease', async (t) => {
  const one = await overlay({ nodes: 3, agents: 1 })
  const lost = new Set(['n0', 'n1', 'n2'])
  one.fault = (method, node) => (method === 'newLease' && lost.delete(node) ? 'lost reply' : undefined)
  const view = await one.services.create(slice())
  t.is(view.state, 'active')
  t.is(one.calls.filter((call) => call.startsWith('newLease')).length, 6)
  t.deepEqual(one.leases().toSorted(), view.members.map(({ lease }) => lease).toSorted())
})

test('a lease whose every reply was lost is found out about and deleted', async (t) => {
  const one = await overlay({ nodes: 3, agents: 1 })
  one.fault = (method, node) => (method === 'newLease' && node === 'n0' ? 'lost reply' : undefined)
  await t.throwsAsync(one.services.create(slice()), { code: 'PEER_UNREACHABLE' })
  t.is(one.leases().length, 1, 'the node answers no demand, so the lease cannot be named yet')
  one.fault = () => undefined
  await one.clock.advance(RETRY_MS)
  t.true(await nothingHeld(one))
  t.is(one.nodes[0]?.enforcer.created.length, 1, 'nothing was made to be deleted')
  t.is(await rows(one), 0)
})

test('a node that cannot be reached is replaced, and what it may hold is given up when it can', async (t) => {
  const one = await overlay({ nodes: 4, agents: 1 })
  one.fault = (_method, node) => (node === 'n0' ? 'lost reply' : undefined)
  const view = await one.services.create(slice())
  t.deepEqual(view.members.map(({ nodeName }) => nodeName).toSorted(), ['n1', 'n2', 'n3'])
  t.is(one.leases().length, 4)
  one.fault = () => undefined
  await one.clock.advance(RETRY_MS)
  t.is(one.leases().length, 3)
  t.is((await one.services.show('mesh')).members.length, 3)
})

test('a member that was never redeemed is given up without a virtual machine', async (t) => {
  const one = await overlay({ nodes: 3, agents: 1 })
  one.fault = (method) => (method === 'newLease' ? 'unreachable' : undefined)
  await t.throwsAsync(one.services.create(slice()), { code: 'PEER_UNREACHABLE' })
  t.true(await nothingHeld(one))
  t.is(one.nodes.flatMap(({ enforcer }) => enforcer.created).length, 0)
})

test('a node that is down at the deletion keeps the slice until it is gone there too', async (t) => {
  const one = await overlay({ nodes: 3, agents: 1 })
  await one.services.create(slice())
  one.fault = (_method, node) => (node === 'n1' ? 'unreachable' : undefined)
  const { deleted, unreachable } = await one.services.delete('mesh')
  t.is(deleted, 2)
  t.deepEqual(unreachable, [one.nodes[1]?.key.principal])
  t.is((await one.services.show('mesh')).state, 'deleting')
  await one.clock.advance(RETRY_MS)
  t.is(one.leases().length, 1)
  const again = await one.restart()
  again.fault = one.fault
  await one.clock.advance(RETRY_MS)
  t.is(one.leases().length, 1, 'after a restart it is known still')
  again.fault = () => undefined
  await one.clock.advance(RETRY_MS)
  t.true(await nothingHeld(one))
  t.is(await rows(again), 0)
})

test('a lease that a node failed to delete is not taken for deleted', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(slice({ count: 1 }))
  one.nodes[0]?.store.plan(1, 'fail')
  t.is((await one.services.delete('mesh')).unreachable.length, 1)
  t.is(one.leases().length, 1)
  await one.clock.advance(RETRY_MS)
  t.true(await nothingHeld(one))
})

test('what cannot be given up is let go when its term is over', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(slice({ count: 1 }))
  one.fault = () => 'unreachable'
  await one.services.delete('mesh')
  await one.clock.advance(HOUR + RETRY_MS)
  t.deepEqual(await one.services.list(), [])
  t.is(await rows(one), 0)
})

test('where a program cannot be launched the member is given up if enough are left', async (t) => {
  const one = await overlay({ nodes: 3, agents: 1 })
  const [node] = one.nodes
  if (node === undefined) return t.fail()
  node.enforcer.launchesToFail = 1
  const view = await one.services.create(slice({ minimum: 2 }))
  t.is(view.state, 'partial')
  await one.clock.advance(RETRY_MS)
  t.is(one.leases().length, 2)
  await one.services.delete('mesh')
  node.enforcer.launchesToFail = 1
  await t.throwsAsync(one.services.create(slice()), { code: 'VSERVER_FAILED', message: /^n0: / })
  return t.true(await nothingHeld(one))
})

test('a node that is too busy to launch is not taken for one that runs the program', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  const [node] = one.nodes
  if (node === undefined) return t.fail()
  node.enforcer.launch = async () => {
    throw new SlicenetError('BUSY', 'busy with 64 requests')
  }
  await t.throwsAsync(one.services.create(slice({ count: 1 })), { code: 'BUSY' })
  return t.true(await nothingHeld(one))
})

test('a launch whose reply was lost is no failure when it is tried again', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  one.store.plan(5, 'die-before')
  await t.throwsAsync(one.services.create(slice({ count: 2 })))
  t.is(one.calls.filter((call) => call.startsWith('launch')).length, 2, 'it died when the programs ran')
  const again = await one.restart()
  await one.clock.advance(1)
  await settle()
  const view = await again.services.show('mesh')
  t.is(view.state, 'active')
  t.true(view.members.every(({ state }) => state === 'running'))
})

test('an interrupted creation gives everything back', async (t) => {
  for (const at of ['tickets', 'redeem', 'upload'] as const) {
    const one = await overlay({ nodes: 3, agents: 1 })
    const controller = new AbortController()
    const onProgress = ({ step }: { readonly step: string }): void => {
      if (step === at) controller.abort(new Error('interrupted'))
    }
    await t.throwsAsync(one.services.create(slice(), { onProgress, signal: controller.signal }), {
      message: 'interrupted'
    })
    t.true(await nothingHeld(one), at)
    t.is(await rows(one), 0, at)
  }
})

for (const fault of ['die-before', 'die-after'] as const) {
  test(`after a crash (${fault}) at any commit a creation is resumed: the slice runs, and nothing else is held`, async (t) => {
    for (let commit = 1; commit <= 5; commit++) {
      const one = await overlay({ nodes: 2, agents: 1 })
      one.store.plan(commit, fault)
      const outcome = await one.services.create(slice({ count: 2 })).then(
        () => 'made',
        () => 'failed'
      )
      t.is(outcome, 'failed', `commit ${commit}`)
      const again = await one.restart()
      await one.clock.advance(RETRY_MS)
      const views = await again.services.list()
      if (views.length === 0) {
        t.is(commit, 1, 'only what was never written down is forgotten')
        t.true(await nothingHeld(again))
        continue
      }
      t.is(views[0]?.state, 'active', `commit ${commit}`)
      // Tickets that the crash forgot lapse, and count no longer.
      await one.clock.advance(400_000)
      t.is(one.leases().length, 2, `commit ${commit}`)
      await again.services.delete('mesh')
      t.true(await nothingHeld(again), `commit ${commit}`)
    }
  })

  test(`after a crash (${fault}) at any commit a deletion is resumed`, async (t) => {
    for (let commit = 1; commit <= 5; commit++) {
      const one = await overlay({ nodes: 2, agents: 1 })
      await one.services.create(slice({ count: 2 }))
      one.store.plan(commit, fault)
      await one.services.delete('mesh').catch(() => {})
      const again = await one.restart()
      await one.clock.advance(RETRY_MS)
      const views = await again.services.list()
      if (views[0]?.state === 'active') {
        t.is(`${commit} ${fault}`, '1 die-before', 'only what was never written down is not done')
        await again.services.delete('mesh')
      }
      // An agent that was not told hears of it from the node when the hold would be over.
      await one.clock.advance(400_000)
      t.true(await nothingHeld(again), `commit ${commit}`)
      t.is(await rows(again), 0)
    }
  })
}

test('members are named by node, lease or vserver, exactly or by how they begin', async (t) => {
  const one = await overlay({ nodes: 3, agents: 1 })
  const { members } = await one.services.create(slice())
  t.is(one.services.members('mesh').length, 3)
  for (const member of members) {
    for (const name of [member.nodeName, member.node, member.lease, member.vserver]) {
      t.deepEqual(
        one.services.members('mesh', name).map(({ node }) => node),
        [member.node]
      )
    }
  }
  t.throws(() => one.services.members('mesh', 'n'), { code: 'AMBIGUOUS_ID' })
  t.throws(() => one.services.members('mesh', 'zebra'), { code: 'NOT_FOUND' })
  t.throws(() => one.services.members('other'), { code: 'NOT_FOUND' })
})

test('a member whose node does not answer is shown as unknown, one whose lease is over as ended', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  await one.services.create(slice({ count: 2 }))
  one.fault = (_method, node) => (node === 'n0' ? 'unreachable' : undefined)
  t.deepEqual(
    (await one.services.show('mesh')).members.map(({ state }) => state),
    ['unknown', 'running']
  )
  await one.clock.advance(HOUR)
  t.deepEqual(
    (await one.services.show('mesh')).members.map(({ state }) => state),
    ['ended', 'ended']
  )
})

test('an agent whose tickets are worth nothing costs its tickets, and the nodes are had from another', async (t) => {
  for (const liar of [0, 1]) {
    const one = await overlay({ nodes: 2, agents: 2 })
    const { key, agent } = one.agents[liar]!
    const honest = agent.handlers()
    agent.handlers = () => ({
      ...honest,
      async getTickets(params, call) {
        const { grants } = await honest.getTickets(params, call)
        return { grants: grants.map((grant) => lapsed(grant, key, one.clock.now())) }
      }
    })
    const view = await one.services.create(slice({ count: 2 }))
    t.is(view.state, 'active')
    t.true(view.members.every((member) => member.agent !== key.principal))
    t.is(one.leases().length, 2)
  }
})

/** The ticket granted, signed anew for a time that is over. */
function lapsed(grant: Grant, key: SigningKey, now: number): Grant {
  const { chain = [] } = grant
  const { body } = ticketObject.open(chain.at(-1) ?? new Uint8Array())
  const { bytes } = ticketObject.sign({ ...body, redeemBefore: now - 1 }, key)
  return { ...grant, chain: [...chain.slice(0, -1), bytes] }
}

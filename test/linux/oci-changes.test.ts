/** What freezing and resizing do to the programs of a vserver, each beside what happens without. */
import test from 'ava'
import { openFilesPerProcess } from '../../src/enforce/capacity.ts'
import { outputOf, SMALL, vserverSpec } from '../enforce/enforcer-contract.ts'
import { OciNode } from './oci-node.ts'

const MIB = 1024 * 1024

let node: OciNode

test.before(async () => {
  node = await OciNode.start()
})

test.after.always(async () => {
  await node?.stop()
})

async function sh(id: string, script: string): Promise<{ output: string; exitCode: number }> {
  const session = await node.enforcer.exec(id, { argv: ['sh', '-c', script], env: {} })
  await session.write(undefined)
  return outputOf(session)
}

/** What is in the file after half a second more. */
async function countLater(id: string): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, 500))
  return Number(await node.readInside(id, '/tmp/count'))
}

test.serial('a frozen program does nothing, and goes on where it was', async (t) => {
  const { id } = await node.enforcer.create(vserverSpec(node.image, { id: 'frozen' }))
  const script = 'n=0; while :; do n=$((n+1)); echo $n > /tmp/count; sleep 0.01; done'
  await node.enforcer.launch(id, { argv: ['sh', '-c', script], env: {} })
  const first = await countLater(id)
  t.true((await countLater(id)) > first)
  await node.enforcer.freeze(id)
  const frozen = await countLater(id)
  t.is(await countLater(id), frozen)
  await node.enforcer.thaw(id)
  t.true((await countLater(id)) > frozen)
  await node.enforcer.destroy(id)
})

test.serial('a status says when the network narrows what a vserver sends', async (t) => {
  const { id } = await node.enforcer.create(vserverSpec(node.image, { id: 'narrowed' }))
  t.is((await node.enforcer.status(id))?.isEgressNarrowed, undefined)
  node.network.narrowed.add(id)
  t.true((await node.enforcer.status(id))?.isEgressNarrowed)
  await node.enforcer.destroy(id)
})

test.serial('a program handles the signal that it was sent', async (t) => {
  const { id } = await node.enforcer.create(vserverSpec(node.image, { id: 'signalled' }))
  const script = 'trap "echo reloaded; exit 3" HUP; echo ready; while :; do sleep 0.01; done'
  await node.enforcer.launch(id, { argv: ['sh', '-c', script], env: {} })
  let log = ''
  for await (const { bytes } of node.enforcer.logs(id, { follow: true })) {
    log += Buffer.from(bytes).toString()
    if (log === 'ready\n') await node.enforcer.signal(id, 'SIGHUP')
  }
  t.is(log, 'ready\nreloaded\n')
  t.is((await node.enforcer.status(id))?.exit?.exitCode, 3)
  await node.enforcer.destroy(id)
})

test.serial('what did not fit fits after a resize, and does not after another', async (t) => {
  const { id } = await node.enforcer.create(vserverSpec(node.image, { id: 'resized' }))
  const attempts = {
    // A shell that holds so much text.
    memory: 'x=$(dd if=/dev/zero bs=1M count=100 2>/dev/null | tr "\\0" x); echo ${#x}',
    disk: 'dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null && sync /big; code=$?; rm -f /big; exit $code',
    pids: 'for i in $(seq 60); do sleep 5 & done; kill $(jobs -p); wait'
  }
  const fitting = async (): Promise<string[]> => {
    const fits: string[] = []
    for (const [name, script] of Object.entries(attempts)) {
      const { exitCode } = await sh(id, script)
      if (exitCode === 0) fits.push(name)
    }
    return fits
  }
  t.deepEqual(await fitting(), [])
  const larger = { ...SMALL, memoryBytes: 512 * MIB, diskBytes: 512 * MIB, pids: 256 }
  await node.enforcer.resize(id, larger)
  t.deepEqual(await fitting(), ['memory', 'disk', 'pids'])
  await node.settle()
  await node.enforcer.resize(id, SMALL)
  t.deepEqual(await fitting(), [])
  await node.enforcer.destroy(id)
})

test.serial('a resize of which one part fails changes nothing', async (t) => {
  const { id } = await node.enforcer.create(vserverSpec(node.image, { id: 'halfway' }))
  const before = await node.limits(id)
  node.network.attachesToFail = 1
  const larger = { ...SMALL, memoryBytes: 512 * MIB, pids: 256 }
  await t.throwsAsync(node.enforcer.resize(id, larger), { code: 'VSERVER_FAILED' })
  t.deepEqual(await node.limits(id), before)
  await node.enforcer.resize(id, larger)
  t.notDeepEqual(await node.limits(id), before)
  await node.enforcer.destroy(id)
})

test.serial('what a process may have open is bounded, and cannot be raised inside', async (t) => {
  const { id } = await node.enforcer.create(vserverSpec(node.image, { id: 'open-files' }))
  const { output } = await sh(id, 'ulimit -Sn; ulimit -Hn; ulimit -Hn 1000000 || echo refused')
  const [soft, hard, raised] = output.trim().split('\n')
  t.is(hard, String(await openFilesPerProcess()))
  // What Go before 1.20 is told in the moment in which it starts it takes for its own, and raises (golang/go#46279).
  t.true(['1024', hard].includes(soft), soft)
  t.is(raised, 'refused')
  // Three are open already.
  t.is((await sh(id, 'ulimit -Sn 4; cat /etc/passwd')).exitCode, 0)
  t.is((await sh(id, 'ulimit -Sn 3; cat /etc/passwd')).exitCode, 1)
  await node.enforcer.destroy(id)
})

test.serial('inodes end with the disk, and the node goes on', async (t) => {
  const resources = { ...SMALL, diskBytes: 5 * MIB }
  const { id } = await node.enforcer.create(vserverSpec(node.image, { id: 'inodes', resources }))
  const eat = 'mkdir /eat; i=0; while { true > /eat/$i; } 2>/dev/null; do i=$((i+1)); done; echo $i'
  const { output } = await sh(id, eat)
  const made = Number(output)
  t.true(made > 1000, output)
  await node.settle()
  t.true((await node.enforcer.usage(id)).diskBytes <= resources.diskBytes)
  const other = await node.enforcer.create(vserverSpec(node.image, { id: 'neighbour' }))
  t.is((await sh(other.id, 'echo x > /file && cat /file')).output, 'x\n')
  await node.enforcer.resize(id, SMALL)
  t.is((await sh(id, 'true > /eat/more && echo made')).output, 'made\n')
  await node.enforcer.destroy(id)
  await node.enforcer.destroy(other.id)
})

import test from 'ava'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { until } from '../peer/fixtures/network.ts'
import { account, codeOf, type Account } from './peers.ts'

const invited = async (organisation: Account, ...options: string[]): Promise<string> =>
  String((await organisation.run('invite', 'create', ...options)).json()['text'])

const peersOf = async (one: Account): Promise<number> => {
  const { status } = (await one.run('status')).json() as { status: { peers: number } }
  return status.peers
}

test('an organisation that lets in its members is joined by an invite that makes a member, and by no other', async (t) => {
  const [organisation, alice, mallory] = [await account(t), await account(t), await account(t)]
  await organisation.configure(`connections: { allow: { organisations: [${organisation.principal}] } }\n`)
  const stop = await organisation.daemon()
  const forAlice = await invited(organisation, '--for', alice.principal)
  const forAnybody = await invited(organisation)
  const joined = await alice.run('join', forAlice)
  t.is(joined.exitCode, 0, joined.stdout)
  t.like(joined.json(), { reached: [organisation.principal] })
  const refused = await mallory.run('join', forAnybody)
  t.is(codeOf(refused), 'DENIED', refused.stdout)
  t.false((await readdir(mallory.home)).includes('invited-peers.json'))
  await alice.daemon()
  await until(async () => (await peersOf(alice)) === 1, 'alice is let in again, by what she kept')
  await stop()
  await organisation.configure('')
  await organisation.daemon()
  const open = await invited(organisation)
  t.is((await mallory.run('join', open)).exitCode, 0, 'without the gate')
})

test('a file that the organisation keeps turns peers away while the daemon runs', async (t) => {
  const [organisation, alice] = [
    await account(t, 'connections: { file: connections.yaml }\n'),
    await account(t)
  ]
  const file = join(organisation.home, 'connections.yaml')
  await writeFile(file, '{}\n')
  await organisation.daemon()
  await alice.daemon()
  t.is((await alice.run('join', await invited(organisation))).exitCode, 0)
  t.is(await peersOf(alice), 1)
  await writeFile(file, 'deny: [')
  await writeFile(file, `deny: { principals: [${alice.principal}] }\n`)
  await until(async () => (await peersOf(alice)) === 0, 'turned away')
  await writeFile(file, '{}\n')
  await until(async () => (await peersOf(alice)) === 1, 'let in again')
})

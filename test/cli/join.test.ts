import test from 'ava'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { invite } from '../../src/daemon/vouching.ts'
import { formatObjectText, parseObjectText } from '../../src/ticket/object-text.ts'
import { until } from '../peer/fixtures/network.ts'
import { account, codeOf, type Account } from './peers.ts'

const textOf = async (organisation: Account, ...options: string[]): Promise<string> => {
  const created = await organisation.run('invite', 'create', ...options)
  return String(created.json()['text'])
}

/** What a peer has kept of invites. */
const kept = async ({ home }: Account): Promise<string[]> =>
  (await readdir(home, { recursive: true }))
    .filter((name) => /^invited-peers|^memberships\//.test(name))
    .sort()

const peersOf = async (one: Account): Promise<number> => {
  const { status } = (await one.run('status')).json() as { status: { peers: number } }
  return status.peers
}

test('whoever is invited joins without a daemon, and again without harm', async (t) => {
  const [organisation, alice] = [await account(t), await account(t)]
  await organisation.daemon()
  const text = await textOf(organisation, '--for', alice.principal)
  const joined = await alice.run('join', text)
  t.is(joined.exitCode, 0, joined.stdout)
  t.regex(joined.stderr, /example\.org \(12D3KooW\w+\) invites you/)
  t.like(joined.json(), {
    issuer: organisation.principal,
    organisation: 'example.org',
    reached: [organisation.principal],
    already: false
  })
  t.like(joined.json()['membership'], { issuer: organisation.principal, member: alice.principal })
  const after = await kept(alice)
  t.is(after.length, 2)
  t.like((await alice.run('org', 'list')).json()['memberships'], [{ issuer: organisation.principal }])
  t.like((await alice.run('join', text)).json(), { already: true })
  t.deepEqual(await kept(alice), after)
})

test('a daemon that runs connects at once, and rejoins by the invite after a restart', async (t) => {
  const [organisation, alice] = [await account(t), await account(t)]
  await organisation.daemon()
  const stop = await alice.daemon()
  t.is(await peersOf(alice), 0)
  const joined = await alice.run('join', await textOf(organisation))
  t.is(joined.exitCode, 0, joined.stdout)
  t.is(joined.json()['membership'], undefined)
  t.is(await peersOf(alice), 1)
  await stop()
  // So that only what the invite brought leads back.
  await rm(join(alice.home, 'known-peers.json'), { force: true })
  const again = await alice.daemon()
  await until(async () => (await peersOf(alice)) === 1, 'joined again')
  await again()
  await rm(join(alice.home, 'known-peers.json'), { force: true })
  await rm(join(alice.home, 'invited-peers.json'))
  await alice.daemon()
  t.is(await peersOf(alice), 0, 'without it nothing does')
})

test('a membership that a running daemon takes in is shown from then on', async (t) => {
  const [organisation, alice] = [await account(t), await account(t)]
  await alice.daemon()
  const vouched = (await organisation.run('org', 'vouch', alice.principal)).json()
  t.is((await alice.run('org', 'join', String(vouched['text']))).exitCode, 0)
  t.like((await alice.run('org', 'list')).json()['memberships'], [{ organisation: 'example.org' }])
})

test('an invite whose peers are not reached is not kept', async (t) => {
  const [organisation, alice] = [await account(t), await account(t)]
  const stop = await organisation.daemon()
  const text = await textOf(organisation, '--for', alice.principal)
  await stop()
  const refused = await alice.run('join', text)
  t.is(codeOf(refused), 'PEER_UNREACHABLE')
  t.is(refused.exitCode, 6)
  const { error } = refused.json() as { error: { details: { peers: { address: string }[] } } }
  t.is(error.details.peers.length, 1)
  t.deepEqual(await kept(alice), [])
  await alice.daemon()
  t.is(codeOf(await alice.run('join', text)), 'PEER_UNREACHABLE')
  t.deepEqual(await kept(alice), [])
})

test('another peer behind the address that an invite names is not taken for the one invited by', async (t) => {
  const [organisation, other, alice] = [await account(t), await account(t), await account(t)]
  await other.daemon()
  const { status } = (await other.run('status')).json() as { status: { multiaddrs: string[] } }
  const address = String(status.multiaddrs[0]).replace(other.principal, organisation.principal)
  const text = await textOf(organisation, '--bootstrap', address)
  t.is(codeOf(await alice.run('join', text)), 'PEER_UNREACHABLE')
  t.deepEqual(await kept(alice), [])
})

test('garbled, expired, forged and foreign invites are told apart, before anybody is asked', async (t) => {
  const [organisation, alice, mallory] = [await account(t), await account(t), await account(t)]
  const at = `/ip4/127.0.0.1/tcp/9/p2p/${organisation.principal}`
  const text = await textOf(organisation, '--for', alice.principal, '--bootstrap', at)
  const refused = async (who: Account, given: string, code: string): Promise<void> => {
    const finished = await who.run('join', given)
    t.is(codeOf(finished), code)
    t.notRegex(finished.stderr, /starting a peer/)
    t.deepEqual(await kept(who), [])
  }
  const other = text[40] === 'x' ? 'y' : 'x'
  await refused(alice, `${text.slice(0, 40)}${other}${text.slice(41)}`, 'ENCODING_INVALID')
  await refused(alice, text.slice(0, -7), 'ENCODING_INVALID')
  await refused(mallory, text, 'MEMBERSHIP_FOREIGN')
  const old = { key: organisation.key, organisation: 'x', now: Date.now() - 3_600_000 }
  const ended = invite(old, { forMs: 1000, memberForMs: 1000, bootstrap: [at] })
  await refused(alice, ended.text, 'INVITE_EXPIRED')
  const forged = parseObjectText('invite', text)
  forged[forged.length - 3]! ^= 1
  await refused(alice, formatObjectText('invite', forged), 'SIGNATURE_INVALID')
  // Mallory's own key under the organisation's name.
  const stolen = Buffer.from(parseObjectText('invite', text)).toString('latin1')
  const renamed = Buffer.from(stolen.replaceAll(organisation.principal, mallory.principal), 'latin1')
  await refused(alice, formatObjectText('invite', new Uint8Array(renamed)), 'SIGNATURE_INVALID')
})

test('an invite is read from a file, and a damaged list of peers is passed over', async (t) => {
  const [organisation, alice] = [await account(t), await account(t)]
  await organisation.daemon()
  const file = join(alice.home, 'invite.txt')
  await organisation.run('invite', 'create', '--out', file)
  await writeFile(join(alice.home, 'invited-peers.json'), 'garbage')
  t.is((await alice.run('join', file)).exitCode, 0)
  const text = await readFile(join(alice.home, 'invited-peers.json'), 'utf8')
  const { addresses } = JSON.parse(text) as { addresses: string[] }
  t.true(addresses.every((address) => address.endsWith(organisation.principal)))
})

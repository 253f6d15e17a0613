import test from 'ava'
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createKey, loadKey } from '../../src/daemon/key-file.ts'
import { principalOfPublicKey } from '../../src/ticket/principal.ts'

async function scratch(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'slicenet-key-'))
}

test('a key that was made is loaded as the same principal', async (t) => {
  const directory = await scratch()
  const path = join(directory, 'deep/identity.key')
  const made = await createKey(path)
  t.deepEqual(await loadKey(path), made)
  t.is((await stat(path)).mode & 0o777, 0o600)
  t.is((await stat(join(directory, 'deep'))).mode & 0o777, 0o700)
  t.regex(await readFile(path, 'utf8'), /^slicenet-ed25519-seed:[\w-]{43}\n$/)
  t.deepEqual(await readdir(join(directory, 'deep')), ['identity.key'])
  await rm(directory, { recursive: true })
})

test('the principal is that of the seed, as RFC 8032 has it (§7.1, test 1)', async (t) => {
  const directory = await scratch()
  const path = join(directory, 'identity.key')
  const seed = Buffer.from('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', 'hex')
  const publicKey = Buffer.from('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a', 'hex')
  await writeFile(path, `slicenet-ed25519-seed:${seed.toString('base64url')}\n`, { mode: 0o600 })
  t.is((await loadKey(path)).principal, principalOfPublicKey(publicKey))
  await rm(directory, { recursive: true })
})

test('making a key never replaces a file, and leaves no draft', async (t) => {
  const directory = await scratch()
  const path = join(directory, 'identity.key')
  await writeFile(path, 'precious')
  await t.throwsAsync(createKey(path), { code: 'NAME_TAKEN' })
  t.is(await readFile(path, 'utf8'), 'precious')
  t.deepEqual(await readdir(directory), ['identity.key'])
  await rm(directory, { recursive: true })
})

test('a key that others may read or write is refused', async (t) => {
  const directory = await scratch()
  const path = join(directory, 'identity.key')
  await createKey(path)
  for (const mode of [0o640, 0o604, 0o620, 0o601]) {
    await chmod(path, mode)
    await t.throwsAsync(loadKey(path), { code: 'KEY_INVALID' }, mode.toString(8))
  }
  await rm(directory, { recursive: true })
})

test('files that hold no key are refused without a word of what they hold', async (t) => {
  const directory = await scratch()
  const path = join(directory, 'identity.key')
  const seed = Buffer.alloc(32, 7).toString('base64url')
  const texts = [
    '',
    'secret',
    seed,
    `slicenet-ed25519-seed:${seed.slice(1)}`,
    `slicenet-ed25519-seed:${seed}x`
  ]
  for (const text of [...texts, `slicenet-ed25519-seed:${seed}\n\n`, 'x'.repeat(1000)]) {
    await writeFile(path, text, { mode: 0o600 })
    const error = await t.throwsAsync(loadKey(path), { code: 'KEY_INVALID' })
    if (text !== '') t.false(error?.message.includes(text))
  }
  await t.throwsAsync(loadKey(directory), { code: 'KEY_INVALID' })
  await t.throwsAsync(loadKey(join(directory, 'none')), { code: 'NOT_FOUND' })
  await rm(directory, { recursive: true })
})

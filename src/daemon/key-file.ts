/**
 * A principal's secret key on disk: one line, `slicenet-ed25519-seed:` and the 32-byte seed in base64url, in a file
 * that its owner alone can read.
 */
import { constants } from 'node:fs'
import { link, mkdir, open, unlink, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { systemRandom, type Random } from '../base/random.ts'
import { principalOfPublicKey, type SigningKey } from '../ticket/principal.ts'
import { nativeEd25519 } from '../wire/ed25519.ts'

const PREFIX = 'slicenet-ed25519-seed:'
const SEED_BYTES = 32
/** Larger than any key file, so that reading one too large shows. */
const READ_BYTES = 256

function keyOfSeed(seed: Uint8Array): SigningKey {
  return { principal: principalOfPublicKey(nativeEd25519.publicKey(seed)), seed }
}

/** Makes a key and its file, and the directory with mode 0700. Throws `NAME_TAKEN` rather than replace a file. */
export async function createKey(
  path: string,
  components: { readonly random: Random } = { random: systemRandom }
): Promise<SigningKey> {
  const seed = components.random.bytes(SEED_BYTES)
  const suffix = Buffer.from(components.random.bytes(6)).toString('hex')
  const draft = `${path}.${suffix}`
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const file = await open(draft, 'wx', 0o600)
  try {
    await file.writeFile(`${PREFIX}${Buffer.from(seed).toString('base64url')}\n`)
    await file.sync()
    // A link never replaces, and shows the file only when it is whole.
    await link(draft, path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    throw new SlicenetError('NAME_TAKEN', `there is a key already: ${path}`, {
      hint: 'show it with `slicenet keys show`; move the file away to begin as another principal',
      cause: error
    })
  } finally {
    await file.close()
    await unlink(draft)
  }
  await syncDirectory(dirname(path))
  return keyOfSeed(seed)
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/**
 * Throws `NOT_FOUND` when there is no file, and `KEY_INVALID` when group or others may read it or it holds anything
 * else than a key.
 */
export async function loadKey(path: string): Promise<SigningKey> {
  const file = await openKey(path)
  try {
    const { mode } = await requireRegular(file, path)
    if ((mode & 0o077) !== 0) {
      throw new SlicenetError('KEY_INVALID', `others than its owner may use the key file ${path}`, {
        hint: `chmod 600 ${path}; if somebody may have read it, make a new key`
      })
    }
    const { buffer, bytesRead } = await file.read(Buffer.alloc(READ_BYTES), 0, READ_BYTES, 0)
    return keyOfSeed(parseSeed(buffer.toString('utf8', 0, bytesRead), path))
  } finally {
    await file.close()
  }
}

async function requireRegular(file: FileHandle, path: string): Promise<{ mode: number }> {
  const stats = await file.stat()
  if (!stats.isFile()) throw new SlicenetError('KEY_INVALID', `not a regular file: ${path}`)
  return stats
}

async function openKey(path: string): Promise<FileHandle> {
  try {
    // A named pipe must not hold the program up.
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') {
      throw new SlicenetError('NOT_FOUND', `there is no key at ${path}`, {
        hint: 'make one with `slicenet keys new`',
        cause: error
      })
    }
    throw new SlicenetError(
      'KEY_INVALID',
      `the key file ${path} cannot be read: ${code ?? 'unknown error'}`,
      {
        cause: error
      }
    )
  }
}

function parseSeed(text: string, path: string): Uint8Array {
  const encoded = /^([A-Za-z0-9_-]{43})\n?$/.exec(
    text.startsWith(PREFIX) ? text.slice(PREFIX.length) : ''
  )?.[1]
  const seed = encoded === undefined ? undefined : Buffer.from(encoded, 'base64url')
  if (seed?.length === SEED_BYTES && seed.toString('base64url') === encoded) return new Uint8Array(seed)
  // Never quotes what it read: it may be another secret.
  throw new SlicenetError('KEY_INVALID', `${path} holds no slicenet key`, {
    hint: `expected one line, ${PREFIX}<43 characters of base64url>`
  })
}

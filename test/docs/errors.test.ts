import test from 'ava'
import { readFile } from 'node:fs/promises'
import { ERROR_CODES } from '../../src/base/errors.ts'

async function read(name: string): Promise<string> {
  return readFile(new URL(`../../docs/${name}`, import.meta.url), 'utf8')
}

test('docs/errors.md explains every code, each once, with its exit code and whether to try again', async (t) => {
  const rows = [
    ...(await read('errors.md')).matchAll(/^\| `([A-Z_]+)` \| (\d+) \| (yes|no) \| (.+) \| (.+) \|$/gm)
  ]
  const told = Object.fromEntries(
    rows.map(([, code, exit, again]) => [code, { exit: Number(exit), retryable: again === 'yes' }])
  )
  t.is(rows.length, Object.keys(told).length)
  const codes = Object.entries(ERROR_CODES).map(
    ([code, { exit, retryable }]) => [code, { exit, retryable }] as const
  )
  t.deepEqual(told, Object.fromEntries(codes))
  // No error is without a hint.
  for (const [code, { hint }] of Object.entries(ERROR_CODES)) t.true(hint.length > 10, code)
  for (const [, code, , , what, todo] of rows)
    t.true((what?.length ?? 0) > 10 && (todo?.length ?? 0) > 10, code)
})

test('docs/cli.md names every command', async (t) => {
  const text = await read('cli.md')
  const commands = [
    'find',
    'slice create',
    'slice list',
    'slice show',
    'slice exec',
    'slice logs',
    'slice renew',
    'slice delete',
    'lease list',
    'ticket inspect',
    'ticket verify-proof',
    'ticket list',
    'ticket revoke',
    'ticket revoke-issuer',
    'proof list',
    'proof save',
    'daemon',
    'devnet up',
    'devnet down',
    'devnet status',
    'devnet exec',
    'image build',
    'image import',
    'image fetch',
    'image list',
    'keys new',
    'keys show',
    'doctor',
    'status',
    'store check',
    'store repair'
  ]
  for (const command of commands) t.regex(text, new RegExp(`\`slicenet ${command}`), command)
})

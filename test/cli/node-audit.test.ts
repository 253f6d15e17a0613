import test from 'ava'
import { serveControl } from '../daemon/control-fixture.ts'
import { cli } from './cli-fixture.ts'

const unwatched = [{ kind: 'unwatched' as const, from: Date.UTC(2026, 0, 1), to: Date.UTC(2026, 0, 2) }]
const sound = { faults: [], firstPiece: 1, lastPiece: 3, roots: 1, signedAt: 1000, signedPiece: 3, unwatched }

test('a record of which nothing is signed is not called sound', async (t) => {
  const { signedAt: _at, signedPiece: _piece, ...rest } = sound
  await using control = await serveControl({ nodeAuditVerify: async () => ({ ...rest, roots: 0 }) })
  const home = control.directory
  const told = await cli(['node', 'audit', 'verify'], { home })
  t.not(told.exitCode, 0)
  t.regex(told.stderr, /nothing of the record of flows has been signed yet/)
  t.like((await cli(['node', 'audit', 'verify', '--json'], { home })).json(), { sound: false, roots: 0 })
})

test('when nobody watched is told by verify, flows and whois', async (t) => {
  await using control = await serveControl({
    nodeAuditVerify: async () => sound,
    nodeWhois: async () => ({ flows: [], owners: [], unwatched }),
    nodeFlows: async (_params, { emit }) => {
      await emit({ flows: unwatched })
      return {}
    }
  })
  const home = control.directory
  const verified = await cli(['node', 'audit', 'verify'], { home })
  t.is(verified.exitCode, 0)
  t.regex(verified.stdout, /not watched: +2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z/)
  const said = /not watched from 2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z/
  t.regex((await cli(['node', 'flows'], { home })).stdout, said)
  const [line] = (await cli(['node', 'flows', '--json-lines'], { home })).stdout.split('\n')
  t.like(JSON.parse(line ?? ''), { kind: 'unwatched', from: '2026-01-01T00:00:00.000Z' })
  const question = ['--time', '2026-01-01T12:00:00Z', '--address', '192.0.2.9', '--port', '53']
  t.regex((await cli(['node', 'whois', ...question], { home })).stderr, said)
})

import test from 'ava'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { proofView } from '../../src/daemon/proof-view.ts'
import { bundleFinding, type FraudBundle } from '../../src/ticket/fraud-bundle.ts'
import { decodeCbor, encodeCbor } from '../../src/wire/cbor.ts'
import { serveControl } from '../daemon/control-fixture.ts'
import { agentKey, delegation, holderKey, nodeKey, NOW, ticketOf } from '../daemon/signed-objects.ts'
import { fraud, overIssuing, proofOf } from '../ticket/frauds.ts'
import { cli, type Finished } from './cli-fixture.ts'

/** Checks a file that holds just that. */
async function verify(content: Uint8Array | string, ...words: string[]): Promise<Finished> {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-proof-'))
  try {
    const file = join(directory, 'proof')
    await writeFile(file, content)
    return await cli(['ticket', 'verify-proof', file, ...words])
  } finally {
    await rm(directory, { recursive: true })
  }
}

function withEvidence(bundle: FraudBundle, evidence: readonly (Uint8Array | undefined)[]): Uint8Array {
  return encodeCbor({ ...(decodeCbor(bundle.bytes, { bytesMax: 1e6, depthMax: 4 }) as object), evidence })
}

test('a proof is checked by its own evidence, however it is written down', async (t) => {
  const bundle = fraud({ finder: holderKey, accused: agentKey })
  const base64 = Buffer.from(bundle.bytes).toString('base64')
  const forms = [
    bundle.bytes,
    base64,
    Buffer.from(bundle.bytes).toString('hex'),
    (base64.match(/.{1,76}/g) ?? []).join('\n')
  ]
  for (const form of forms) {
    const { exitCode, stdout } = await verify(form)
    t.is(exitCode, 0)
    t.regex(
      stdout,
      new RegExp(`^proof: +${bundle.proof.id}\nkind: +equivocation\naccused: +${agentKey.principal}\n`)
    )
    t.regex(stdout, new RegExp(`\nfound by: +${holderKey.principal}\n`))
    t.regex(stdout, /\nproven: +\S.*\n\nEVIDENCE /)
    t.is(stdout.match(/^ticket /gm)?.length, 2)
  }
  const document = (await verify(bundle.bytes, '--json')).json()
  t.like(document, {
    proven: true,
    proof: { proof: bundle.proof.id, kind: 'equivocation', accused: agentKey.principal },
    evidence: [
      { type: 'ticket', signature: 'valid' },
      { type: 'ticket', signature: 'valid' }
    ]
  })
})

test('a proof of many pieces shows each', async (t) => {
  const { exitCode, stdout } = await verify(proofOf(overIssuing()).bytes)
  t.is(exitCode, 0)
  t.is(stdout.match(/^delegation /gm)?.length, 1)
  t.is(stdout.match(/^ticket /gm)?.length, 21)
})

test('what is forged, altered, irrelevant or cut short proves nothing: exit code 5', async (t) => {
  const one = fraud()
  const [first, second] = one.finding.evidence.map(({ bytes }) => bytes)
  const flipped = (bytes: Uint8Array | undefined, field: string): Uint8Array => {
    const changed = Uint8Array.from(bytes ?? [])
    const at = Buffer.from(changed).indexOf(field) + field.length + 20
    changed[at] = (changed[at] ?? 0) ^ 1
    return changed
  }
  const tickets = [ticketOf({ cpuMillis: 200 }), ticketOf({ cpuMillis: 300 })]
  const honest = {
    ...one.finding,
    accused: agentKey.principal,
    evidence: [delegation, ...tickets.slice(0, 1)]
  }
  const bad: Readonly<Record<string, Uint8Array | string>> = {
    'a forged signature': withEvidence(one, [first, flipped(second, 'signature')]),
    'an altered ticket': withEvidence(one, [first, flipped(second, 'payload')]),
    'evidence of another fraud': withEvidence(
      one,
      fraud().finding.evidence.map(({ bytes }) => bytes)
    ),
    'evidence left out': withEvidence(one, [first]),
    'evidence added': withEvidence(one, [first, second, delegation.bytes]),
    'one ticket twice': withEvidence(one, [first, first]),
    'an honest agent accused': bundleFinding({ ...honest, kind: 'over-issued' }, holderKey, {
      now: NOW,
      seq: 1
    }).bytes,
    'somebody else accused': bundleFinding({ ...one.finding, accused: nodeKey.principal }, holderKey, {
      now: NOW,
      seq: 1
    }).bytes,
    'a forged proof': encodeCbor({
      proof: flipped(one.proof.bytes, 'signature'),
      evidence: [first, second]
    }),
    'the beginning of a proof': one.bytes.slice(0, -10),
    'a ticket': ticketOf({ cpuMillis: 200 }).bytes,
    'some text': 'hello',
    nothing: ''
  }
  t.is((await verify(one.bytes)).exitCode, 0)
  for (const [what, content] of Object.entries(bad)) {
    const { exitCode, stdout, stderr } = await verify(content)
    t.is(exitCode, 5, what)
    t.is(stdout, '', what)
    t.regex(stderr, /code: (PROOF_INVALID|SIGNATURE_INVALID|ENCODING_INVALID)/, what)
    t.is((await verify(content, '--json')).json()['proven'], false, what)
  }
  for (const content of ['hello', '', ticketOf({ cpuMillis: 200 }).bytes])
    t.regex((await verify(content)).stderr, /no proof of fraud: .*\n.*\n {2}hint: .*slicenet proof save/)
  const missing = await cli(['ticket', 'verify-proof', '/nonexistent/proof'])
  t.is(missing.exitCode, 1)
  t.regex(missing.stderr, /code: NOT_FOUND/)
})

test('a proof that the daemon knows is listed, saved to a file, and checks there', async (t) => {
  const bundle = fraud({ accused: agentKey })
  await using control = await serveControl({
    proofList: async () => ({ proofs: [proofView(bundle)] }),
    proofGet: async () => ({ bundle: bundle.bytes })
  })
  const home = control.directory
  const listed = await cli(['proof', 'list'], { home })
  t.regex(
    listed.stdout,
    new RegExp(`\n${bundle.proof.id.slice(0, 16)} +equivocation +${agentKey.principal} `)
  )
  t.like((await cli(['proof', 'list', '--json'], { home })).json(), { proofs: [{ kind: 'equivocation' }] })
  const file = join(home, 'mallory.proof')
  const saved = await cli(['proof', 'save', bundle.proof.id.slice(0, 14), file], { home })
  t.is(saved.stdout, `${bundle.proof.id} is in ${file}\n`)
  t.is((await cli(['ticket', 'verify-proof', file])).exitCode, 0)
  t.is((await cli(['proof', 'save', bundle.proof.id, file], { home })).exitCode, 1)
  const printed = await cli(['proof', 'save', bundle.proof.id, '-'], { home })
  t.is(printed.stdout, await readFile(file, 'utf8'))
  t.is((await cli(['proof', 'save', 'bafyreix', file], { home })).exitCode, 1)
})

test('tickets are listed, and revoked by the beginning of their id or by a whole one', async (t) => {
  const ticket = ticketOf({ cpuMillis: 200 })
  const other = ticketOf({ cpuMillis: 300 })
  const { node, issuer, holder, notBefore, notAfter } = ticket.body
  const asked: string[] = []
  await using control = await serveControl({
    ticketList: async () => ({
      tickets: [
        {
          ticket: ticket.id,
          role: 'issued',
          node,
          issuer,
          holder,
          slice: 'mesh',
          notBefore,
          notAfter,
          state: 'out'
        }
      ]
    }),
    ticketRevoke: async ({ ticket: id }) => {
      asked.push(id)
      return { revocation: delegation.id, by: 'agent' }
    },
    issuerRevoke: async ({ issuer: agent, beforeSeq }) => {
      asked.push(`${agent} ${beforeSeq}`)
      return { revocation: delegation.id }
    }
  })
  const home = control.directory
  const { stdout } = await cli(['ticket', 'list'], { home })
  t.regex(
    stdout,
    new RegExp(`\n${ticket.id.slice(0, 16)} +issued +mesh +12D3KooW\\w{8} .* out +2027-01-15T08:30:00Z\n$`)
  )
  const short = ticket.id.slice(0, 20)
  t.regex(
    (await cli(['ticket', 'revoke', short], { home })).stdout,
    /is revoked by this agent: nothing is redeemed/
  )
  t.like((await cli(['ticket', 'revoke', other.id, '--json'], { home })).json(), {
    ticket: other.id,
    revocation: delegation.id,
    by: 'agent'
  })
  t.deepEqual(asked, [ticket.id, other.id])
  t.is((await cli(['ticket', 'revoke-issuer', issuer, '--before', '7'], { home })).exitCode, 0)
  t.is(asked.pop(), `${issuer} 7`)
  t.is((await cli(['ticket', 'revoke-issuer', 'somebody'], { home })).exitCode, 5)
  t.is((await cli(['ticket', 'revoke-issuer', issuer, '--before', 'soon'], { home })).exitCode, 2)
  t.is((await cli(['ticket', 'revoke', 'bafyreix'], { home })).exitCode, 1)
})

import test from 'ava'
import * as v from 'valibot'
import { RefusalSigner } from '../../src/ticket/refusal-signer.ts'
import { SlicenetError, type ErrorCode } from '../../src/base/errors.ts'
import { answerCall, callMethod } from '../../src/protocol/exchange.ts'
import { callId, refusalObject, type Refuse } from '../../src/ticket/refusal.ts'
import { writeMessage } from '../../src/wire/duplex.ts'
import { makeKey, NOW } from '../ticket/fixtures.ts'
import { duplexPair } from '../wire/duplex-pair.ts'

const protocol = {
  id: '/slicenet/test/1.0.0',
  signsRefusals: true,
  methods: { ask: { params: v.strictObject({ what: v.string() }), result: v.strictObject({}) } }
} as const

const callee = makeKey()
const other = makeKey()
const refuseAs = (key = callee): Refuse => {
  const refusals = new RefusalSigner(key, () => NOW)
  return (reason, request) => refusals.sign(reason, request).bytes
}
const EVIDENCE = callId('some', {})

/** Asks a peer that answers with `error`, and gives what the caller is told. */
async function ask(
  error: Error,
  { refuse = refuseAs(), isPeer = true, what = 'this' } = {}
): Promise<SlicenetError> {
  const [near, far] = duplexPair()
  void answerCall(
    protocol,
    {
      ask: async () => {
        throw error
      }
    },
    far,
    { principal: other.principal, refuse, signal: new AbortController().signal, onInternalError: () => {} }
  )
  const principal = isPeer ? callee.principal : undefined
  return callMethod(protocol, 'ask', { what }, near, {}, { principal }).then(
    () => {
      throw new Error('it was answered')
    },
    (thrown: unknown) => thrown as SlicenetError
  )
}

test('a decision comes with the signed refusal of just that call, for others to see', async (t) => {
  const error = await ask(new SlicenetError('DENIED', 'not you', { details: { evidence: [EVIDENCE], n: 1 } }))
  t.is(error.code, 'DENIED')
  t.is(error.details?.['refusedBy'], callee.principal)
  t.is(error.details?.['n'], 1)
  const shown = refusalObject.open(Buffer.from(String(error.details?.['envelope']), 'base64'))
  t.is(error.details?.['refusal'], shown.id)
  t.like(shown.body, {
    issuer: callee.principal,
    code: 'DENIED',
    message: 'not you',
    request: callId('ask', { what: 'this' }),
    evidence: [EVIDENCE]
  })
})

test('mishaps are nobody’s decision and go unsigned', async (t) => {
  const mishaps: ErrorCode[] = ['BUSY', 'TIMEOUT', 'INTERNAL', 'STORE_FAILED', 'PEER_UNREACHABLE']
  for (const code of mishaps) {
    const error = await ask(new SlicenetError(code, 'a mishap'))
    t.is(error.code, code)
    t.is(error.details, undefined)
  }
  t.is((await ask(new Error('a bug'))).details, undefined)
})

test('a long message is signed as far as it goes', async (t) => {
  // A character of two units lies across the cut.
  const message = `${'x'.repeat(511)}\u{1F600} and more`
  const error = await ask(new SlicenetError('DENIED', message))
  t.is(error.message, message)
  t.is(error.details?.['refusedBy'], callee.principal)
})

test('a refusal by another than was called is no refusal', async (t) => {
  const error = await ask(new SlicenetError('DENIED', 'no'), { refuse: refuseAs(other) })
  t.is(error.code, 'PROTOCOL_ERROR')
  t.is(error.details, undefined)
})

test('a refusal of another call is no refusal of this one', async (t) => {
  const refuse = refuseAs()
  const old = refuse({ code: 'DENIED', message: 'no' }, callId('ask', { what: 'that' }))
  const error = new SlicenetError('DENIED', 'no')
  t.is((await ask(error, { refuse: () => old })).code, 'PROTOCOL_ERROR')
  // Of the call that it was given for it is.
  t.is((await ask(error, { refuse: () => old, what: 'that' })).code, 'DENIED')
})

test('a refusal for another reason than is given is no refusal', async (t) => {
  const refuse = refuseAs()
  const error = new SlicenetError('DENIED', 'no')
  const otherCode: Refuse = (reason, request) => refuse({ ...reason, code: 'NOT_FOUND' }, request)
  const otherMessage: Refuse = (reason, request) => refuse({ ...reason, message: 'yes' }, request)
  t.is((await ask(error, { refuse: otherCode })).code, 'PROTOCOL_ERROR')
  t.is((await ask(error, { refuse: otherMessage })).code, 'PROTOCOL_ERROR')
})

test('a refusal with any byte of its signature changed is no refusal', async (t) => {
  const refuse = refuseAs()
  const forged: Refuse = (reason, request) => {
    const bytes = Uint8Array.from(refuse(reason, request))
    const at = Buffer.from(bytes).indexOf('signature') + 'signature'.length + 20
    bytes[at] = (bytes[at] ?? 0) ^ 1
    return bytes
  }
  t.is((await ask(new SlicenetError('DENIED', 'no'), { refuse: forged })).code, 'PROTOCOL_ERROR')
  t.is((await ask(new SlicenetError('DENIED', 'no'))).code, 'DENIED')
})

test('what a peer says of a refusal without showing it is not passed on', async (t) => {
  const details = { refusal: EVIDENCE, refusedBy: other.principal, envelope: 'AAAA', n: 1 }
  const [near, far] = duplexPair()
  const asking = callMethod(protocol, 'ask', { what: 'x' }, near, {}, { principal: callee.principal })
  await writeMessage(far, { error: { code: 'DENIED', message: 'no', details } })
  const error = await t.throwsAsync(asking, { instanceOf: SlicenetError })
  t.deepEqual(error.details, { n: 1 })
})

test('on the control socket details pass as they are and nothing is signed or checked', async (t) => {
  const error = new SlicenetError('DENIED', 'no', { details: { refusedBy: other.principal } })
  const told = await ask(error, { isPeer: false, refuse: refuseAs(other) })
  t.is(told.code, 'DENIED')
  t.deepEqual(told.details, { refusedBy: other.principal })
})

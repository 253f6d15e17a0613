import { randomBytes } from 'node:crypto'
import test from 'ava'
import fc from 'fast-check'
import { SlicenetError } from '../../src/base/errors.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { inviteFault, inviteObject, openInvite, type Invite } from '../../src/ticket/invite.ts'
import { formatObjectText, isObjectText, parseObjectText } from '../../src/ticket/object-text.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { encodeCbor } from '../../src/wire/cbor.ts'
import { nativeEd25519 } from '../../src/wire/ed25519.ts'
import { seal } from '../../src/wire/envelope.ts'
import { HOUR, NOW, makeKey } from './fixtures.ts'
import { vouch } from './memberships.ts'

const [organisation, invited] = [makeKey(), makeKey()]
const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'

function bodyOf(changes: Partial<Invite> = {}, key: SigningKey = organisation): Invite {
  return {
    issuer: key.principal,
    notBefore: NOW - HOUR,
    notAfter: NOW + HOUR,
    seq: 1,
    bootstrap: [`/ip4/192.0.2.1/tcp/4001/p2p/${key.principal}`],
    organisation: 'example',
    ...changes
  }
}

const envelope = (changes: Partial<Invite> = {}): Uint8Array =>
  inviteObject.sign(bodyOf(changes), organisation).bytes
const membership = vouch(organisation, invited.principal).bytes
const text = formatObjectText('invite', envelope({ membership }))

/** The code with which a text is refused as an invite; `undefined` when it is taken. */
function codeOf(candidate: string): string | undefined {
  try {
    openInvite(parseObjectText('invite', candidate))
    return undefined
  } catch (error) {
    if (error instanceof SlicenetError) return error.code
    throw error
  }
}

test('an invite survives being text, wrapped and indented', (t) => {
  const wrapped = text.replaceAll(/.{60}/g, '  $&\r\n')
  for (const form of [text, wrapped, ` ${text}\n`]) {
    const opened = openInvite(parseObjectText('invite', form))
    t.deepEqual(opened.invite.body, bodyOf({ membership }))
    t.is(opened.membership?.body.member, invited.principal)
  }
  t.regex(text, /^slicenet-invite-[1-9A-HJ-NP-Za-km-z]+$/)
})

test('any bytes are the same after they were text, and no text of one kind is of the other', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 700 }), (bytes) => {
      const written = formatObjectText('membership', bytes)
      t.is(Buffer.compare(parseObjectText('membership', written), bytes), 0)
      t.throws(() => parseObjectText('invite', written), { code: 'ENCODING_INVALID' })
    }),
    { numRuns: 200 }
  )
})

test('every change of a single letter is refused as garbled', (t) => {
  const letters = [...Array.from(BASE58), '0', 'O', 'I', 'l', '-', ' ', '\u00e9', '\0']
  const refuse = (whole: string, at: number, letter = ''): void => {
    if (letter === whole[at]) return
    const code = codeOf(`${whole.slice(0, at)}${letter}${whole.slice(at + 1)}`)
    if (code !== 'ENCODING_INVALID') t.fail(`letter ${at} as ${JSON.stringify(letter)}: ${code}`)
  }
  // Of a short text every change there is, of a real one a few of each letter.
  const short = formatObjectText('invite', envelope().subarray(0, 60))
  for (let at = 0; at < short.length; at++) for (const letter of letters) refuse(short, at, letter)
  for (let at = 0; at < text.length; at++) {
    refuse(text, at, ' ')
    refuse(text, at, letters[(at * 7 + 3) % letters.length])
  }
  t.pass()
})

test('a letter left out, doubled or swapped with the next, and every beginning of it, is refused', (t) => {
  for (let at = 0; at < text.length; at++) {
    const [before, letter = '', next = '', after] = [
      text.slice(0, at),
      text[at],
      text[at + 1],
      text.slice(at + 2)
    ]
    const changed = [`${before}${next}${after}`, `${before}${letter}${letter}${next}${after}`, before]
    if (letter !== next) changed.push(`${before}${next}${letter}${after}`)
    for (const candidate of changed) {
      if (candidate === text) continue
      const code = codeOf(candidate)
      if (code !== 'ENCODING_INVALID') t.fail(`at ${at}: ${code}`)
    }
  }
  t.pass()
})

test('without the checksum a letter that changed would pass for a forgery, and be told of wrongly', (t) => {
  const forged = envelope({ membership })
  forged[forged.length - 5]! ^= 1
  t.is(codeOf(formatObjectText('invite', forged)), 'SIGNATURE_INVALID')
})

test('what is no invite is refused for what it is', (t) => {
  t.is(codeOf(''), 'ENCODING_INVALID')
  t.is(codeOf('slicenet-invite-'), 'ENCODING_INVALID')
  t.is(codeOf('slicenet-invite-11111'), 'ENCODING_INVALID')
  t.is(codeOf(formatObjectText('invite', membership)), 'ENCODING_INVALID')
  t.is(codeOf(`slicenet-invite-${'z'.repeat(LIMITS.objectTextCharsMax)}`), 'TOO_LARGE')
  t.is(codeOf(formatObjectText('invite', new Uint8Array(randomBytes(300)))), 'ENCODING_INVALID')
  t.true(isObjectText(text))
  t.false(isObjectText('/tmp/invite'))
})

test('an invite of another version says so', (t) => {
  const payload = encodeCbor({ type: 'invite', version: 2, body: { anything: true } })
  const bytes = seal('invite', payload, organisation.seed, nativeEd25519)
  t.throws(() => openInvite(bytes), { code: 'PROTOCOL_ERROR', message: /version 2/ })
})

test('an invite is of use in its time, and to whom its membership is for', (t) => {
  const opened = openInvite(envelope({ membership }))
  const fault = (now: number, who = invited): string | undefined =>
    inviteFault(opened, { invited: who.principal, now })?.code
  t.is(fault(NOW), undefined)
  t.is(fault(NOW + HOUR - 1), undefined)
  t.is(fault(NOW + HOUR), 'INVITE_EXPIRED')
  t.is(fault(NOW - HOUR - 1), 'NOT_YET_VALID')
  t.is(fault(NOW, makeKey()), 'MEMBERSHIP_FOREIGN')
  const ended = vouch(organisation, invited.principal, { notAfter: NOW - 1 }).bytes
  const late = openInvite(envelope({ membership: ended }))
  t.is(inviteFault(late, { invited: invited.principal, now: NOW })?.code, 'MEMBERSHIP_EXPIRED')
  const ofAnybody = openInvite(envelope())
  t.is(inviteFault(ofAnybody, { invited: makeKey().principal, now: NOW }), undefined)
})

test('a forged membership in a good invite is found', (t) => {
  const forged = Uint8Array.from(membership)
  forged[forged.length - 5]! ^= 1
  t.throws(() => openInvite(envelope({ membership: forged })), { code: 'SIGNATURE_INVALID' })
  t.throws(() => openInvite(envelope({ membership: new Uint8Array(5) })), { code: 'ENCODING_INVALID' })
})

test('addresses that name no peer, come twice or are not canonical are not invited by', (t) => {
  const peer = `/p2p/${organisation.principal}`
  const refused = (bootstrap: readonly string[]): void => {
    t.throws(() => envelope({ bootstrap: [...bootstrap] }), { code: 'ENCODING_INVALID' }, bootstrap[0])
  }
  refused([])
  refused(['/ip4/192.0.2.1/tcp/4001'])
  refused([`/ip4/192.0.2.1/tcp/4001${peer}`, `/ip4/192.0.2.1/tcp/4001${peer}`])
  refused([`/ip4/192.0.2.256/tcp/4001${peer}`])
  refused([`/ip6/2001:DB8::1/tcp/4001${peer}`])
  refused([`/nonsense${peer}`])
  refused(Array.from({ length: 17 }, (_one, index) => `/ip4/192.0.2.${index}/tcp/1${peer}`))
  t.notThrows(() => envelope({ bootstrap: [`/ip6/2001:db8::1/tcp/4001${peer}`] }))
})

test('the largest invite there is has a text that is read', (t) => {
  const domain = 'd'.repeat(LIMITS.invitedAddressCharsMax - `/dns4//tcp/4001/p2p/`.length - 52 - 2)
  const bootstrap = Array.from(
    { length: LIMITS.invitedAddressesMax },
    (_one, index) => `/dns4/${domain}${index.toString().padStart(2, '0')}/tcp/4001/p2p/${invited.principal}`
  )
  const longest = { organisation: '組'.repeat(64), seq: Number.MAX_SAFE_INTEGER }
  const bytes = envelope({
    bootstrap,
    ...longest,
    membership: vouch(organisation, invited.principal, longest).bytes
  })
  t.deepEqual(parseObjectText('invite', formatObjectText('invite', bytes)), bytes)
})

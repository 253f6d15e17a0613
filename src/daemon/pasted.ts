/** Invites and memberships as people hand them over: read, opened, and checked before anything else is done. */
import { inviteFault, openInvite, type OpenedInvite } from '../ticket/invite.ts'
import { membershipFault, membershipObject } from '../ticket/membership.ts'
import { isObjectText, parseObjectText, type TextKind } from '../ticket/object-text.ts'
import type { Principal } from '../ticket/principal.ts'
import { asText, decodeText, readObjectFile } from './object-file.ts'

/**
 * A membership of `member`, an envelope. Throws `ENCODING_INVALID`, `SIGNATURE_INVALID`, `TOO_LARGE`, `NOT_FOUND` for a
 * file that is not there, and `MEMBERSHIP_FOREIGN`, `MEMBERSHIP_EXPIRED` or `NOT_YET_VALID`.
 */
export async function readMembership(
  given: string,
  { member, now }: { readonly member: Principal; readonly now: number }
): Promise<Uint8Array> {
  const bytes = await read('membership', given)
  const fault = membershipFault(membershipObject.open(bytes), { member, now })
  if (fault !== undefined) throw fault
  return bytes
}

/**
 * An invite that this peer can use. `invited` says who that is, and is asked only if it matters. Throws as
 * `readMembership`, and `INVITE_EXPIRED`, `PROTOCOL_ERROR`.
 */
export async function readInvite(
  given: string,
  { invited, now }: { readonly invited: () => Promise<Principal>; readonly now: number }
): Promise<OpenedInvite['invite']> {
  const opened = openInvite(await read('invite', given))
  const who = opened.membership === undefined ? '' : await invited()
  const fault = inviteFault(opened, { invited: who, now })
  if (fault !== undefined) throw fault
  return opened.invite
}

/** The text itself, or a file of its text, bytes, base64 or hex. */
async function read(kind: TextKind, given: string): Promise<Uint8Array> {
  if (isObjectText(given)) return parseObjectText(kind, given)
  const bytes = await readObjectFile(given)
  const text = asText(bytes)
  if (text === undefined) return bytes
  return isObjectText(text) ? parseObjectText(kind, text) : (decodeText(text) ?? bytes)
}

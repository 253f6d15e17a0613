/** What the daemon does with memberships and invites that its user hands it. */
import type { Clock } from '../base/clock.ts'
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import { within } from '../base/time-limit.ts'
import type { PeerHost } from '../peer/host.ts'
import { directoryProtocol } from '../protocol/directory-protocol.ts'
import type { Handlers } from '../protocol/method.ts'
import { inviteFault, openInvite } from '../ticket/invite.ts'
import type { Principal } from '../ticket/principal.ts'
import type { InvitedPeers } from './invited-peers.ts'
import { membershipView, type joinMethods, type JoinView } from './join-protocol.ts'
import type { Memberships } from './memberships.ts'

export interface JoiningParts {
  readonly host: Pick<PeerHost, 'principal' | 'addAddresses' | 'addBootstrap' | 'caller'>
  readonly memberships: Memberships
  readonly invitedPeers: InvitedPeers
  readonly clock: Clock
}

/** How long a peer to join by may take: dialing, showing who vouches, and a first answer. */
const REACH_MS = 20_000

export function joinHandlers(parts: () => JoiningParts): Handlers<typeof joinMethods> {
  return {
    membershipKeep: async ({ membership }) => membershipView(await parts().memberships.keep(membership)),
    join: async ({ invite }, { signal }) => joinByInvite(parts(), invite, { signal })
  }
}

/** Nothing is kept unless a peer of the invite answers. See `joinMethods.join` for what it throws. */
async function joinByInvite(
  parts: JoiningParts,
  bytes: Uint8Array,
  { signal }: { readonly signal: AbortSignal }
): Promise<JoinView> {
  const { host, memberships, invitedPeers, clock } = parts
  const opened = openInvite(bytes)
  const fault = inviteFault(opened, { invited: host.principal, now: clock.now() })
  if (fault !== undefined) throw fault
  const { invite, membership } = opened
  const { issuer, organisation, bootstrap } = invite.body
  const knew = {
    peers: bootstrap.every((address) => invitedPeers.list().includes(address)),
    membership: membership === undefined || memberships.list().some(({ id }) => id === membership.id)
  }
  // The peers may ask who vouches for this one before they answer.
  using trial = membership === undefined ? undefined : memberships.tryOut(membership)
  const reached = await reachAny(parts, bootstrap, signal)
  await invitedPeers.add(bootstrap)
  host.addBootstrap(bootstrap)
  if (trial !== undefined) await memberships.keep(trial.membership.bytes)
  return {
    issuer,
    organisation,
    bootstrap,
    reached,
    ...(membership === undefined ? {} : { membership: membershipView(membership) }),
    already: knew.peers && knew.membership
  }
}

/** Those that answered when the first did. Throws when none does. */
async function reachAny(
  { host, clock }: JoiningParts,
  addresses: readonly string[],
  signal: AbortSignal
): Promise<Principal[]> {
  const reached: Principal[] = []
  const failures: { readonly address: string; readonly error: SlicenetError }[] = []
  const reach = async (principal: Principal, at: readonly string[]): Promise<void> => {
    try {
      await host.addAddresses(principal, at)
      await host.caller(directoryProtocol, principal)(
        'about',
        {},
        { signal: within(clock, REACH_MS, signal) }
      )
      reached.push(principal)
    } catch (error) {
      for (const address of at) failures.push({ address, error: asSlicenetError(error) })
      throw error
    }
  }
  const byPeer = Map.groupBy(addresses, (address) => address.slice(address.lastIndexOf('/') + 1))
  byPeer.delete(host.principal)
  try {
    await Promise.any([...byPeer].map(async ([principal, at]) => reach(principal, at)))
  } catch {
    signal.throwIfAborted()
    throw notReached(failures)
  }
  return [...reached]
}

function notReached(
  failures: readonly { readonly address: string; readonly error: SlicenetError }[]
): SlicenetError {
  const [first] = failures
  if (first === undefined) {
    return new SlicenetError('PEER_UNREACHABLE', 'the invite names no peer but this one', {
      hint: 'use it at another peer'
    })
  }
  const isDenied = failures.every(({ error }) => error.code === 'DENIED')
  return new SlicenetError(
    isDenied ? 'DENIED' : 'PEER_UNREACHABLE',
    `no peer that the invite names lets this one join: ${first.error.message}`,
    {
      hint: isDenied
        ? first.error.hint
        : 'check the network, and ask whoever invited you whether its peers run; nothing was written',
      details: {
        peers: failures.map(({ address, error: { code, message } }) => ({ address, code, message }))
      },
      cause: first.error
    }
  )
}

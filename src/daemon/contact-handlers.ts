/** What the daemon answers about the peers that it is connected to, and how it pings one. */
import { multiaddr } from '@multiformats/multiaddr'
import * as v from 'valibot'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { systemRandom } from '../base/random.ts'
import { principalOfAddress } from '../peer/calling.ts'
import { contactsOf } from '../peer/contacts.ts'
import type { Directory } from '../peer/directory.ts'
import type { PeerHost } from '../peer/host.ts'
import { pingPeer } from '../peer/pinging.ts'
import type { Handlers } from '../protocol/method.ts'
import { principalSchema, type Principal } from '../ticket/principal.ts'
import type { contactMethods, ContactView } from './contact-protocol.ts'
import { findByPrefix } from './prefix.ts'

export interface ContactParts {
  readonly host: PeerHost
  readonly directory: Directory
  readonly clock: Clock
}

const PING_INTERVAL_MS = 500

interface Named {
  readonly principal: Principal
  readonly name: string | undefined
}

export function contactHandlers(parts: () => ContactParts): Handlers<typeof contactMethods> {
  return {
    // oxlint-disable-next-line typescript/require-await -- handlers are asynchronous.
    async peers() {
      const { host, directory } = parts()
      return {
        peers: contactsOf(host.libp2p).map((contact) => ({ ...contact, ...told(directory, contact) }))
      }
    },
    async ping({ peer, count }, { emit, signal }) {
      const { host, directory, clock } = parts()
      const principal = await principalOf(parts(), peer, signal)
      if (principal === host.principal) throw new SlicenetError('USAGE', 'that is this peer itself')
      const components = { libp2p: () => host.libp2p, clock, random: systemRandom }
      const { relayed, address, sent, rttMicros } = await pingPeer(components, principal, {
        count,
        intervalMs: PING_INTERVAL_MS,
        signal,
        onPath: (path) => emit({ event: 'path', relayed: path.relayed, address: path.address }),
        onPing: (rtt) => emit({ event: 'ping', ...(rtt === undefined ? {} : { rttMicros: rtt }) })
      })
      const { name } = told(directory, { principal })
      return {
        principal,
        ...(name === undefined ? {} : { name }),
        relayed,
        address,
        sent,
        rttMicros: [...rttMicros]
      }
    }
  }
}

/** What the adverts of a peer say. */
function told(
  directory: Directory,
  { principal }: { readonly principal: Principal }
): Pick<ContactView, 'name' | 'roles'> {
  const roles = (['node', 'agent'] as const).filter((role) => directory.get(principal, role) !== undefined)
  const name = directory.get(principal)?.advert.body.name
  return name === undefined ? { roles } : { name, roles }
}

/**
 * Whom a principal, a name, the beginning of either or an address stands for. Makes sure on the way that what is known of
 * where it is can be used. Throws `NOT_FOUND`, `AMBIGUOUS_ID`, `USAGE`.
 */
export async function principalOf(
  parts: ContactParts,
  given: string,
  signal: AbortSignal
): Promise<Principal> {
  const { host, directory } = parts
  if (given.startsWith('/')) {
    const principal = principalAt(given)
    await host.addAddresses(principal, [given])
    return principal
  }
  let principal = v.is(principalSchema, given) ? given : undefined
  principal ??= known(parts, given) ?? (await knownSoon(parts, given, signal))
  const addresses = directory.get(principal)?.advert.body.multiaddrs ?? []
  await host.addAddresses(principal, addresses)
  return principal
}

function principalAt(address: string): Principal {
  try {
    const principal = principalOfAddress(multiaddr(address))
    if (principal !== undefined && v.is(principalSchema, principal)) return principal
  } catch {
    // Said below.
  }
  throw new SlicenetError('USAGE', `not an address that names a peer: ${address}`, {
    hint: 'an address ends in /p2p/<peer id>'
  })
}

function namesIn({ host, directory }: ContactParts): Named[] {
  const adverts = directory.entries().map(({ advert: { body } }) => ({
    principal: body.issuer,
    name: body.name
  }))
  const unnamed = host.connected().map((principal) => ({ principal, name: undefined }))
  const byPrincipal = new Map<Principal, Named>()
  for (const named of [...unnamed, ...adverts]) byPrincipal.set(named.principal, named)
  return [...byPrincipal.values()]
}

const LOOKED_FOR = {
  what: 'peer',
  namesOf: ({ principal, name }: Named) => (name === undefined ? [principal] : [name, principal])
}

/** Throws `AMBIGUOUS_ID`. */
function known(parts: ContactParts, given: string): Principal | undefined {
  try {
    return findByPrefix(namesIn(parts), given, LOOKED_FOR).principal
  } catch (error) {
    if (error instanceof SlicenetError && error.code === 'NOT_FOUND') return undefined
    throw error
  }
}

/** A peer that has just started knows few names. Throws `NOT_FOUND`, `AMBIGUOUS_ID`. */
async function knownSoon(parts: ContactParts, given: string, signal: AbortSignal): Promise<Principal> {
  await parts.directory.refresh({ signal })
  return findByPrefix(namesIn(parts), given, LOOKED_FOR).principal
}

/**
 * The policy of connections: what the configuration says, and a file beside it that the organisation keeps for all of its
 * peers. Both deny, and both allow.
 */
import { parse as parseYaml } from 'yaml'
import { SlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import type { Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { ConnectionGate } from '../peer/connection-gate.ts'
import { connectionPolicySchema, joinedPolicies, type ConnectionPolicy } from '../peer/connection-policy.ts'
import { parse } from '../wire/codec.ts'
import type { DaemonConfig } from './config.ts'
import { FollowedFile, type FollowedFileComponents } from './followed-file.ts'

/** Throws `CONFIG_INVALID` naming the file and each field that is wrong. */
export function parseConnectionPolicy(text: string, file: string): ConnectionPolicy {
  let document: unknown
  try {
    document = parseYaml(text, { maxAliasCount: 0 })
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    throw new SlicenetError('CONFIG_INVALID', `${file}: ${message}`, { cause: error })
  }
  return parse(connectionPolicySchema, document ?? {}, 'CONFIG_INVALID', file)
}

/** Keeps a gate to the policy of a file, in addition to `policy`. */
export function followConnections(
  components: Omit<FollowedFileComponents<ConnectionPolicy>, 'take'> & { readonly gate: ConnectionGate },
  { file, policy }: { readonly file: string; readonly policy: ConnectionPolicy }
): FollowedFile<ConnectionPolicy> {
  const { gate, ...others } = components
  const take = (content: ConnectionPolicy): void => gate.usePolicy(joinedPolicies(policy, content))
  return new FollowedFile(
    { ...others, take },
    {
      file,
      what: 'connections',
      bytesMax: LIMITS.connectionPolicyBytesMax,
      parse: parseConnectionPolicy,
      told: ({ deny, allow }) => ({ denies: deny !== undefined, allowsOnly: allow !== undefined })
    }
  )
}

export interface Guard {
  readonly gate: ConnectionGate
  /** To be started before the peer: it does not let anybody in without its policy. */
  readonly parts: readonly Startable[]
}

/** The gate of a peer whose configuration has a policy of connections. Whom it names elsewhere is let in as well. */
export function guardOf(
  { clock, logger }: { readonly clock: Clock; readonly logger: Logger },
  { connections, node, agent }: DaemonConfig
): Guard | undefined {
  if (connections === undefined) return undefined
  const { file, ...policy } = connections
  const components = { clock, logger: logger.child('connections') }
  const gate = new ConnectionGate(components, { policy })
  const named = [...(node?.agents ?? []), ...(agent?.suppliers ?? [])]
  gate.trust(named.map(({ address }) => address.slice(address.lastIndexOf('/') + 1)))
  const parts = file === undefined ? [] : [followConnections({ ...components, gate }, { file, policy })]
  return { gate, parts }
}

/**
 * The daemon's configuration file, typed: YAML in, `DaemonConfig` out, every field checked and no unknown one passed
 * over. Which roles a daemon has is which of the sections `node`, `agent` and `broker` its file has.
 */
import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { multiaddr } from '@multiformats/multiaddr'
import * as v from 'valibot'
import { parse as parseYaml } from 'yaml'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { byteUnit, cpuUnit, durationUnit, rateUnit } from '../base/units.ts'
import { acceptsSchema } from '../ticket/accepts.ts'
import { connectionPolicyEntries } from '../peer/connection-policy.ts'
import { parsePortRange, type PortRange } from '../ticket/ports.ts'
import { principalSchema } from '../ticket/principal.ts'
import { rightsSchema } from '../ticket/resource-schema.ts'
import { CAPABILITY_RIGHTS } from '../ticket/rights.ts'
import { parse } from '../wire/codec.ts'
import { amount } from './amount-schema.ts'
import {
  address6Schema,
  contradictsUplinks,
  isAboveRoot,
  leasesTooMuch,
  shapingSchema,
  uplinksSchema
} from './shaping-config.ts'

const text = v.pipe(v.string(), v.minLength(1), v.maxLength(128))
const nameSchema = v.pipe(
  v.string(),
  v.maxLength(64),
  v.regex(/^[\w.-]+$/, 'expected letters, digits, . _ -')
)
const multiaddrSchema = v.pipe(
  v.string(),
  v.check(isMultiaddr, 'expected a multiaddr such as /ip4/0.0.0.0/tcp/4001')
)
const peerAddressSchema = v.pipe(
  v.string(),
  v.check(
    (input) => isMultiaddr(input) && /\/p2p\/12D3KooW\w+$/.test(input),
    'expected a multiaddr that ends in /p2p/<peer id>'
  )
)
const percent = (max: number) => v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(max))
const cidr = v.pipe(
  v.string(),
  v.regex(
    /^(?:\d{1,3}(\.\d{1,3}){3}\/\d{1,2}|[0-9a-f:]*:[0-9a-f:.]*\/\d{1,3})$/i,
    'expected a range such as 192.0.2.0/24 or 2001:db8::/32'
  )
)

/** `tcp/20000-29999` or `udp/53`. */
const portRangeText = v.pipe(
  v.string(),
  v.transform(parsePortRange),
  v.custom<PortRange>((range) => range !== undefined, 'expected a range such as tcp/20000-29999')
)

const agentShareSchema = v.strictObject({
  /** Where the agent is; the peer id at its end says who. */
  address: peerAddressSchema,
  sharePercent: v.optional(percent(100)),
  overbookPercent: v.optional(percent(1000), 100),
  maxDepth: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(LIMITS.chainLinksMax)), 3),
  /** Default: an equal part of the node's ports. */
  ports: v.optional(v.array(portRangeText)),
  rights: v.optional(rightsSchema, []),
  /** What its tickets may say at most. Default: the node's largest share of what is left, and no other bounds than the node's. */
  shaping: v.optional(shapingSchema)
})

const nodeFields = v.strictObject({
  /** Names the node among those on this machine: in cgroups, run-time directories and the like. */
  shortName: v.optional(v.pipe(v.string(), v.regex(/^[a-z0-9][a-z0-9-]{0,23}$/))),
  /** Numbers the nodes on this machine, so that their vservers never share user ids. */
  index: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(126)), 0),
  /** The IPv4 address by which the world knows the node. Default: the first uplink's. */
  address: v.optional(v.pipe(v.string(), v.ipv4())),
  /** The same of IPv6; default: the first that its uplink has on the internet. Without any vservers have no IPv6. */
  address6: v.optional(address6Schema),
  uplink: v.optional(uplinksSchema, {}),
  shaping: v.optional(shapingSchema, {}),
  /** Private ranges that vservers may reach. */
  allowedPrivateRanges: v.optional(v.array(cidr), []),
  /** Caps on what may be leased. Default: what the machine has. */
  capacity: v.optional(
    v.strictObject({
      cpu: v.optional(amount(cpuUnit)),
      memory: v.optional(amount(byteUnit)),
      disk: v.optional(amount(byteUnit)),
      egress: v.optional(amount(rateUnit)),
      egressPerDay: v.optional(amount(byteUnit)),
      pids: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1)))
    }),
    {}
  ),
  /** How many vservers like the last that was leased are made ahead, for whoever leases such a one next. */
  spares: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(LIMITS.sparesPerNodeMax)), 1),
  /** What the record of flows may take of the disk; the oldest goes first. */
  flowLog: v.optional(amount(byteUnit), '1GiB'),
  /** Size of the file system for vservers' disks; the file takes only what is used. */
  volume: v.optional(amount(byteUnit), '20GiB'),
  /** Ports that slices may own. */
  ports: v.optional(v.pipe(v.array(portRangeText), v.minLength(1)), [
    'tcp/20000-29999',
    'udp/20000-29999',
    'icmp/20000-29999',
    'gre/20000-29999'
  ]),
  agents: v.pipe(v.array(agentShareSchema), v.maxLength(LIMITS.agentsPerNodeMax)),
  delegationTerm: v.optional(amount(durationUnit), '7d'),
  images: v.optional(
    v.strictObject({
      /** Whether other nodes may have those of this one. Default: unless `accepts` says whom it leases to. */
      serve: v.optional(v.boolean()),
      /** Whether a ticket that is redeemed has the node fetch the image that it lacks, and how large one at most. */
      fetch: v.optional(v.boolean(), false),
      largest: v.optional(v.pipe(amount(byteUnit), v.maxValue(LIMITS.imageArchiveBytesMax)), '2GiB'),
      /** Of fetched images without a name, in all. */
      kept: v.optional(amount(byteUnit), '16GiB')
    }),
    {}
  ),
  /**
   * Administrative slices: who may hold them, and which capabilities may be leased with them, whatever its agents grant.
   * Default: none. An agent may grant them only where its `rights` name them as well.
   */
  administrative: v.optional(
    v.strictObject({
      holders: v.pipe(v.array(principalSchema), v.minLength(1), v.maxLength(LIMITS.administratorsPerNodeMax)),
      capabilities: v.optional(v.array(v.picklist(CAPABILITY_RIGHTS)), [])
    })
  ),
  /** Whom the node leases to, whatever its agents grant: these, and whom these organisations vouch for. Default: anyone. */
  accepts: v.optional(
    v.strictObject({
      principals: v.optional(acceptsSchema.entries.principals, []),
      organisations: v.optional(acceptsSchema.entries.organisations, [])
    })
  )
})

const firstUplinks = 'expected the address of the first uplink, and of no other'
const aboveRoot = 'expected no more than uplink.rate'
const nodeSchema = v.pipe(
  nodeFields,
  v.forward(
    v.check((node) => !contradictsUplinks(node, 'address'), firstUplinks),
    ['address']
  ),
  v.forward(
    v.check((node) => !contradictsUplinks(node, 'address6'), firstUplinks),
    ['address6']
  ),
  v.forward(
    v.check((node) => !leasesTooMuch(node), 'expected no more than uplink.rate without uplink.own'),
    ['capacity', 'egress']
  ),
  v.forward(
    v.check((node) => !isAboveRoot(node, 'icmp'), aboveRoot),
    ['shaping', 'icmp']
  ),
  v.forward(
    v.check((node) => !isAboveRoot(node, 'options'), aboveRoot),
    ['shaping', 'options']
  ),
  v.forward(
    v.check((node) => !isAboveRoot(node, 'newDestinations'), aboveRoot),
    ['shaping', 'newDestinations']
  )
)

const wishesMax = LIMITS.portRangesPerTicketMax
const portCount = v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(wishesMax)), 0)

/** What to get of one node from another agent. */
const purchaseSchema = v.strictObject({
  node: principalSchema,
  cpu: amount(cpuUnit),
  /** Default: as much as is guaranteed; the same of egressMax. */
  cpuMax: v.optional(amount(cpuUnit)),
  memory: amount(byteUnit),
  disk: amount(byteUnit),
  egress: amount(rateUnit),
  egressMax: v.optional(amount(rateUnit)),
  egressPerDay: amount(byteUnit),
  pids: v.pipe(v.number(), v.integer(), v.minValue(1)),
  /** How many ports of each protocol, whichever are free. */
  ports: v.pipe(
    v.optional(v.strictObject({ tcp: portCount, udp: portCount, icmp: portCount, gre: portCount }), {}),
    v.check(
      ({ tcp, udp, icmp, gre }) => tcp + udp + icmp + gre <= wishesMax,
      `expected at most ${wishesMax} ports in all`
    )
  ),
  rights: v.optional(rightsSchema, []),
  shaping: v.optional(shapingSchema),
  term: v.optional(amount(durationUnit), '1d')
})

const supplierSchema = v.strictObject({
  /** Where the other agent is; the peer id at its end says who. */
  address: peerAddressSchema,
  nodes: v.pipe(
    v.array(purchaseSchema),
    v.minLength(1),
    v.maxLength(LIMITS.ticketsPerMessageMax),
    v.check(
      (nodes) => new Set(nodes.map(({ node }) => node)).size === nodes.length,
      'expected every node once'
    )
  )
})

/** What a policy file stands instead of. */
const POLICY_FIELDS = ['holders', 'longestTerm', 'rights', 'shaping', 'ticketsPerHolder', 'partners'] as const

const agentFields = v.strictObject({
  /** A file of rules, relative to this one; instead of those below up to partners. */
  policy: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(4096))),
  holders: v.optional(v.union([v.literal('anyone'), v.array(principalSchema)]), 'anyone'),
  longestTerm: v.optional(amount(durationUnit), '30d'),
  hold: v.optional(amount(durationUnit), '5m'),
  rights: v.optional(rightsSchema, []),
  /** What a ticket may say at most, and says where it is not asked for less. Default: what nodes delegate, and a share of 1. */
  shaping: v.optional(shapingSchema),
  /** Tickets of one holder that are out at a time. */
  ticketsPerHolder: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1_000_000)), 256),
  /** Other agents that may have tickets to cut their own from. */
  partners: v.optional(v.pipe(v.array(principalSchema), v.maxLength(256)), []),
  /** Other agents that this one gets such tickets of, as their partner. */
  suppliers: v.optional(v.pipe(v.array(supplierSchema), v.maxLength(32)), [])
})

const MEASURE_INTERVAL_MS_MAX = 7 * 24 * 3_600_000

const measureSchema = v.strictObject({
  /** Whether the peer finds out where it is in the network, and answers others who do. */
  place: v.optional(v.boolean(), true),
  /** How often it measures another peer, once it has settled. */
  every: v.optional(
    v.pipe(amount(durationUnit), v.minValue(1000), v.maxValue(MEASURE_INTERVAL_MS_MAX)),
    '30s'
  ),
  /** Whether a node measures its uplink, and how often. */
  uplink: v.optional(v.boolean(), true),
  uplinkEvery: v.optional(
    v.pipe(amount(durationUnit), v.minValue(60_000), v.maxValue(MEASURE_INTERVAL_MS_MAX)),
    '6h'
  )
})

const agentSchema = v.pipe(
  v.unknown(),
  v.check(
    (input) => {
      const given = Object.keys(typeof input === 'object' && input !== null ? input : {})
      return !given.includes('policy') || !POLICY_FIELDS.some((field) => given.includes(field))
    },
    `expected either policy or ${POLICY_FIELDS.join(', ')}`
  ),
  agentFields
)

const when = v.picklist(['auto', 'always', 'never'])
const reachSchema = v.strictObject({
  /** Whether it relays for peers that nobody can dial: `auto` unless it finds that it cannot be dialed itself. */
  relay: v.optional(when, 'auto'),
  /** Whether it has itself be reached through relays: `auto` while it cannot be dialed. */
  reserve: v.optional(when, 'auto'),
  /** Whether it looks for peers on its LAN by multicast DNS, and answers them. */
  mdns: v.optional(v.boolean(), false)
})

const brokerSchema = v.strictObject({
  /** Whom it works for. */
  callers: v.optional(
    v.union([v.literal('anyone'), v.pipe(v.array(principalSchema), v.maxLength(1024))]),
    'anyone'
  )
})

/** Whom this peer lets connect; see `ConnectionPolicy`. */
const connectionsSchema = v.strictObject({
  ...connectionPolicyEntries,
  /** A file of more of it, taken again when it changes. Relative to the configuration. */
  file: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(4096)))
})

const schema = v.strictObject({
  name: nameSchema,
  organisation: v.optional(text, 'none'),
  region: v.optional(text, 'none'),
  site: v.optional(text),
  country: v.optional(text),
  listen: v.optional(v.array(multiaddrSchema), ['/ip4/0.0.0.0/tcp/4001']),
  announce: v.optional(v.array(multiaddrSchema)),
  /** Default: the list that comes with the program. */
  bootstrap: v.optional(v.array(peerAddressSchema)),
  reach: v.optional(reachSchema, {}),
  /** How often adverts are made anew, and how long each is good for. */
  advertEvery: v.optional(amount(durationUnit), '30s'),
  advertLife: v.optional(v.pipe(amount(durationUnit), v.maxValue(LIMITS.advertLifetimeMsMax)), '2m'),
  measure: v.optional(measureSchema, {}),
  connections: v.optional(connectionsSchema),
  node: v.optional(nodeSchema),
  agent: v.optional(agentSchema),
  /** Whether this peer brokers for others. */
  broker: v.optional(brokerSchema),
  /** Brokers of others that are asked as well when nodes are looked for: where they are, or any that the DHT names. */
  brokers: v.optional(
    v.union([v.literal('any'), v.pipe(v.array(peerAddressSchema), v.maxLength(LIMITS.brokersAskedMax))]),
    []
  )
})

export type DaemonConfig = v.InferOutput<typeof schema>
export type NodeConfig = NonNullable<DaemonConfig['node']>
export type AgentConfig = NonNullable<DaemonConfig['agent']>
export type BrokerConfig = NonNullable<DaemonConfig['broker']>
export type PurchaseConfig = AgentConfig['suppliers'][number]['nodes'][number]

/** Whether other nodes may have the images of this one: where it leases to some only, what they lease is theirs. */
export function servesImages({ images, accepts }: Pick<NodeConfig, 'images' | 'accepts'>): boolean {
  return images.serve ?? accepts === undefined
}

function isMultiaddr(input: string): boolean {
  try {
    multiaddr(input)
    return true
  } catch {
    return false
  }
}

/** Throws `CONFIG_INVALID` naming the file and each field that is wrong. */
export function parseConfig(yaml: string, file: string): DaemonConfig {
  let document: unknown
  try {
    document = parseYaml(yaml, { maxAliasCount: 0 })
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    throw new SlicenetError('CONFIG_INVALID', `${file}: ${message}`, { cause: error })
  }
  const config = parse(schema, document ?? {}, 'CONFIG_INVALID', file)
  const { agent, connections } = config
  const beside = (path: string): string => resolve(dirname(file), path)
  return {
    ...config,
    ...(agent?.policy === undefined ? {} : { agent: { ...agent, policy: beside(agent.policy) } }),
    ...(connections?.file === undefined
      ? {}
      : { connections: { ...connections, file: beside(connections.file) } })
  }
}

/** Reads a configuration file; where there is none and none was asked for, a peer without roles. */
export async function loadConfig(
  file: string,
  options: { readonly required: boolean }
): Promise<DaemonConfig> {
  let yaml: string
  try {
    yaml = await readFile(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' && !options.required) return parseConfig('name: peer', file)
    throw new SlicenetError(
      'CONFIG_INVALID',
      `the configuration ${file} cannot be read: ${code ?? 'unknown error'}`,
      {
        cause: error
      }
    )
  }
  return parseConfig(yaml, file)
}

/** `src/daemon` and `dist/daemon` lie equally deep below the package. */
const BOOTSTRAP_LIST = new URL('../../bootstrap/peers.txt', import.meta.url)

/** By whom to join the overlay: the configuration's peers, else those of the list. Throws `CONFIG_INVALID`. */
export async function bootstrapPeers({ bootstrap }: DaemonConfig): Promise<readonly string[]> {
  if (bootstrap !== undefined) return bootstrap
  const lines = (await readFile(BOOTSTRAP_LIST, 'utf8'))
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
  const peers = lines.filter((line) => line !== '')
  return parse(v.array(peerAddressSchema), peers, 'CONFIG_INVALID', 'bootstrap/peers.txt')
}

/** Adds peers to join by that were given on the command line. Throws `CONFIG_INVALID`. */
export async function withBootstrap(
  config: DaemonConfig,
  addresses: readonly string[]
): Promise<DaemonConfig> {
  if (addresses.length === 0) return config
  const added = parse(v.array(peerAddressSchema), addresses, 'CONFIG_INVALID', '--bootstrap')
  return { ...config, bootstrap: [...new Set([...(await bootstrapPeers(config)), ...added])] }
}

/** The TCP ports that a daemon with this configuration listens on. Throws `CONFIG_INVALID`. */
export async function configuredPorts(file: string): Promise<number[]> {
  const { listen } = await loadConfig(file, { required: false })
  return tcpPorts(listen)
}

export function tcpPorts(listen: readonly string[]): number[] {
  return listen.map((address) => Number(/\/tcp\/(\d+)/.exec(address)?.[1] ?? 0)).filter((port) => port !== 0)
}

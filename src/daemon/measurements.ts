/** What a peer measures of the network, made from the daemon's parts: its place, and a node's uplink. */
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { LIMITS } from '../base/limits.ts'
import type { Random } from '../base/random.ts'
import { UplinkMeter } from '../node/uplink-meter.ts'
import type { Directory } from '../peer/directory.ts'
import type { PeerHost } from '../peer/host.ts'
import { Measuring, type Remembered } from '../peer/measuring.ts'
import { measureProtocol } from '../protocol/measure-protocol.ts'
import type { Store } from '../store/store.ts'
import type { Principal } from '../ticket/principal.ts'
import type { DaemonConfig, NodeConfig } from './config.ts'

export interface MeasurementComponents {
  readonly store: Store
  readonly host: PeerHost
  readonly directory: Directory
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
}

/** One measurement of the uplink sends what the node's own traffic is guaranteed in this time. */
const UPLINK_SECONDS = 2
const UPLINK_FIRST_MS = 20_000

/** Nothing where measuring is turned off. To be made before the host is started. */
export function createMeasuring(
  components: MeasurementComponents,
  config: DaemonConfig
): Measuring | undefined {
  const { store, directory } = components
  if (!config.measure.place) return undefined
  return new Measuring(
    {
      ...components,
      logger: components.logger.child('measuring'),
      remembered: row(store, 'place'),
      addressesOf: async (principal, { far, signal }) => {
        const entry = far
          ? await directory.lookup(principal, { role: 'node', signal })
          : directory.get(principal)
        return entry?.advert.body.multiaddrs
      }
    },
    { intervalMs: config.measure.every, sink: config.agent !== undefined }
  )
}

/** Nothing where measuring the uplink is turned off. `agents`: those that hold the node's delegation. */
export function createUplinkMeter(
  components: Omit<MeasurementComponents, 'directory'>,
  { measure }: DaemonConfig,
  { uplink: [uplink] }: NodeConfig,
  agents: () => readonly Principal[]
): UplinkMeter | undefined {
  const { store, host, logger } = components
  // It is measured by the node's own connections, which the first is for.
  if (!measure.uplink || uplink === undefined) return undefined
  return new UplinkMeter(
    {
      ...components,
      principal: host.principal,
      logger: logger.child('uplink'),
      remembered: row(store, 'uplink'),
      sinks: agents,
      callPeer: (principal) => host.caller(measureProtocol, principal)
    },
    {
      intervalMs: measure.uplinkEvery,
      initialDelayMs: UPLINK_FIRST_MS,
      bytesMax: Math.min(LIMITS.sinkBytesMax, Math.floor((uplink.own * UPLINK_SECONDS) / 8)),
      capBps: uplink.rate
    }
  )
}

function row(store: Store, key: string): Remembered {
  return {
    load: async () => store.get('measure', key),
    save: async (value) => store.commit([{ table: 'measure', key, value }])
  }
}

/**
 * The brokers of others that this peer asks: for adverts that it lacks, whenever nodes are looked for, and for plans when
 * it is told to. What they say is checked as everything that is heard.
 */
import type { Clock } from '../base/clock.ts'
import { asSlicenetError, SlicenetError } from '../base/errors.ts'
import type { Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import { RemoteBroker } from '../broker/remote-broker.ts'
import type { Directory } from '../peer/directory.ts'
import type { PeerHost } from '../peer/host.ts'
import { brokerProtocol, type Plan, type Want } from '../protocol/broker-protocol.ts'
import type { Principal } from '../ticket/principal.ts'
import type { DaemonConfig } from './config.ts'

export interface OtherBrokersComponents {
  readonly host: Pick<PeerHost, 'principal' | 'caller' | 'addAddresses'>
  readonly directory: Pick<Directory, 'findBrokers' | 'learn'>
  readonly clock: Clock
  readonly logger: Logger
}

/** Nobody who looks for nodes waits longer for what brokers might add. */
const ASK_MS = 5000
/** Whom the DHT named is asked for so long before it is looked up again. */
const NAMED_MS = 60_000

type Options = { readonly signal?: AbortSignal }

export class OtherBrokers implements Startable {
  readonly #components: OtherBrokersComponents
  readonly #configured: DaemonConfig['brokers']
  #named: { readonly brokers: readonly Principal[]; readonly at: number } | undefined

  constructor(components: OtherBrokersComponents, init: { readonly brokers: DaemonConfig['brokers'] }) {
    this.#components = components
    this.#configured = init.brokers
  }

  async start(): Promise<void> {
    if (this.#configured === 'any') return
    for (const address of this.#configured) {
      await this.#components.host.addAddresses(principalAt(address), [address])
    }
  }

  async stop(): Promise<void> {}

  /** Has the directory learn what they know of nodes that match. Throws the signal's reason, and nothing else. */
  async ask(query: string | undefined, options: Options = {}): Promise<void> {
    if (this.#configured.length === 0) return
    const { clock, logger } = this.#components
    const signal = within(clock, ASK_MS, options.signal)
    const brokers =
      this.#configured === 'any'
        ? await this.#find({ signal }).catch(() => [])
        : this.#configured.map(principalAt)
    await Promise.all(
      brokers.map(async (broker) => {
        try {
          await this.#remote(broker).find(query, { signal })
        } catch (error) {
          logger.debug('a broker did not say what it knows', { broker, error })
        }
      })
    )
    options.signal?.throwIfAborted()
  }

  /**
   * A plan of another's broker: of `broker`, or without one of the first that answers among those configured and those that the
   * DHT names. Throws what the last one failed with, and `NOT_FOUND` when there is none.
   */
  async plan(want: Want, broker: Principal | undefined, options: Options = {}): Promise<Plan> {
    let failed: unknown
    for (const each of broker === undefined ? await this.#any(options) : [broker]) {
      try {
        return await this.#remote(each).plan(want, options)
      } catch (error) {
        options.signal?.throwIfAborted()
        failed = error
        const { code } = asSlicenetError(error)
        // Another would say the same.
        if (code === 'QUERY_INVALID') break
        this.#components.logger.debug('a broker did not plan', { broker: each, error })
      }
    }
    throw (
      failed ??
      new SlicenetError('NOT_FOUND', 'no broker is known', {
        hint: 'name one with --broker PRINCIPAL, or plan without: this peer brokers for itself'
      })
    )
  }

  async #any(options: Options): Promise<readonly Principal[]> {
    const configured = this.#configured === 'any' ? [] : this.#configured.map(principalAt)
    return configured.length > 0 ? configured : this.#find(options)
  }

  async #find(options: Options): Promise<readonly Principal[]> {
    const { clock, directory } = this.#components
    const now = clock.monotonic()
    if (this.#named === undefined || now - this.#named.at >= NAMED_MS) {
      const brokers = (await directory.findBrokers(options)).slice(0, LIMITS.brokersAskedMax)
      // That nobody was named yet is no reason to wait with the next question.
      if (brokers.length === 0) return []
      this.#named = { brokers, at: now }
    }
    return this.#named.brokers
  }

  #remote(broker: Principal): RemoteBroker {
    const { host, directory, clock } = this.#components
    if (broker === host.principal) {
      throw new SlicenetError('USAGE', 'this peer is itself that broker', {
        hint: 'leave --broker out'
      })
    }
    return new RemoteBroker({
      broker,
      call: host.caller(brokerProtocol, broker),
      clock,
      learn: (bytes) => directory.learn(bytes)
    })
  }
}

function principalAt(address: string): Principal {
  return address.slice(address.lastIndexOf('/') + 1)
}

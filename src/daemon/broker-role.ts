/**
 * The role of a broker: finds nodes and plans slices for whoever asks, each as the principal that it is. A caller's
 * memberships are not passed on, so nodes and agents that serve members only count for principals that they name.
 */
import type { Startable } from '../base/lifecycle.ts'
import type { Clock } from '../base/clock.ts'
import type { Broker } from '../broker/broker.ts'
import { brokerHandlers } from '../broker/broker-service.ts'
import type { Directory } from '../peer/directory.ts'
import type { PeerHost } from '../peer/host.ts'
import { brokerProtocol } from '../protocol/broker-protocol.ts'
import type { Principal } from '../ticket/principal.ts'
import type { BrokerConfig } from './config.ts'

export interface BrokerRoleComponents {
  readonly host: Pick<PeerHost, 'serve'>
  readonly directory: Pick<Directory, 'announceBroker'>
  readonly clock: Clock
  readonly brokerFor: (principal: Principal) => Pick<Broker, 'find' | 'plan'>
}

export class BrokerRole implements Startable {
  readonly #components: BrokerRoleComponents
  readonly #config: BrokerConfig
  #isStarted = false

  constructor(components: BrokerRoleComponents, init: { readonly config: BrokerConfig }) {
    this.#components = components
    this.#config = init.config
  }

  async start(): Promise<void> {
    if (this.#isStarted) return
    this.#isStarted = true
    const { host, directory, clock, brokerFor } = this.#components
    const { callers } = this.#config
    const accepts = (principal: Principal): boolean => callers === 'anyone' || callers.includes(principal)
    await host.serve(brokerProtocol, brokerHandlers({ clock, brokerFor, accepts }))
    directory.announceBroker()
  }

  async stop(): Promise<void> {}
}

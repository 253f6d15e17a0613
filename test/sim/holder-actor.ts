/** Holders: the real broker and service manager, and somebody who asks them for this and that. */
import { SlicenetError } from '../../src/base/errors.ts'
import { Broker } from '../../src/broker/broker.ts'
import { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import { nodeProtocol } from '../../src/protocol/node-protocol.ts'
import { ServiceManager } from '../../src/service/service-manager.ts'
import type { SliceDescription } from '../../src/service/slice.ts'
import { redeemObject } from '../../src/ticket/redeem.ts'
import { amounts } from '../ticket/fixtures.ts'
import { storeFlawOf, type Flaw } from './flaws.ts'
import { Host, messageOf, type Process } from './host.ts'
import type { Exchange, Witness } from './observer.ts'
import type { HolderActor, Medium } from './overlay.ts'
import { note } from './world.ts'

export interface HolderInit {
  readonly name: string
  readonly flaw: Flaw | undefined
}

const RETRY_MS = 7000
const RECENT = 8
const NAMES = ['ant', 'bee', 'cat', 'dog', 'eel', 'fox']

export function makeHolder(medium: Medium, { name, flaw }: HolderInit): HolderActor {
  const host = new Host(medium.world, {
    name,
    storeFlaw: storeFlawOf(flaw),
    program: (process) => run(medium, holder, process)
  })
  const holder: HolderActor = { host, services: undefined, slices: new Set() }
  return holder
}

async function run(
  { network, directory, world, frauds }: Medium,
  holder: HolderActor,
  process: Process
): Promise<void> {
  const { clock, store, logger, host } = process
  process.onDeath(() => (holder.services = undefined))
  const broker = new Broker({
    principal: host.key.principal,
    directory: { refresh: async () => 0, entries: () => directory.entries(process) },
    clock,
    logger,
    callAgent: (agent) => network.caller(process, agentProtocol, agent)
  })
  const services = new ServiceManager(
    {
      key: host.key,
      store,
      broker,
      callNode: (node) => network.caller(process, nodeProtocol, node),
      clock,
      random: world.chance,
      observe: (envelopes) => frauds.observeBytes(process, envelopes),
      logger
    },
    { retryMs: RETRY_MS }
  )
  await services.start()
  holder.services = services
}

/** Remembers demands as they are sent, to be sent again when nobody expects it. */
export class Demands implements Witness {
  readonly #seen: Exchange[] = []

  asked(exchange: Exchange): void {
    if (exchange.method === 'newLease' || exchange.method === 'renewLease') this.#seen.push(exchange)
  }

  answered(): void {}

  /** Those sent last, for tickets are good for a short time only. */
  recent(): readonly Exchange[] {
    return this.#seen.slice(-RECENT)
  }
}

/** One thing that the person at a holder's does. Mostly something that makes sense. */
export function act(medium: Medium, holder: HolderActor, demands: Demands): void {
  const { services, host, slices } = holder
  const { process } = host
  const { chance } = medium.world
  if (services === undefined || process === undefined) return
  const dice = chance.between(0, 99)
  if (dice < 45) {
    const name = nameAmong(
      medium,
      NAMES.filter((one) => !slices.has(one))
    )
    attempt(medium, holder, `create ${name}`, services.create(description(medium, name)))
    slices.add(name)
  } else if (dice < 74) {
    const name = nameAmong(medium, [...slices])
    attempt(medium, holder, `delete ${name}`, services.delete(name))
    slices.delete(name)
  } else if (dice < 86) {
    const name = nameAmong(medium, [...slices])
    const durationMs = chance.between(5, 120) * 1000
    attempt(medium, holder, `renew ${name}`, services.renew(name, { durationMs }))
  } else if (dice < 92) {
    const name = nameAmong(medium, [...slices])
    attempt(medium, holder, `show ${name}`, services.show(name))
  } else if (demands.recent().length > 0) presentAgain(medium, holder, process, demands)
}

function nameAmong({ world: { chance } }: Medium, names: readonly string[]): string {
  return names.length === 0 || chance.happens(100) ? chance.pick(NAMES) : chance.pick(names)
}

/** What fails is tried again or forgotten; the person takes it as it comes. */
function attempt(
  { world }: Medium,
  { host, slices }: HolderActor,
  what: string,
  work: Promise<unknown>
): void {
  note(world, host.name, `${what}?`)
  work.then(
    () => note(world, host.name, `${what}: done`),
    (error: unknown) => {
      note(world, host.name, `${what}: ${messageOf(error)}`)
      const [verb, name = ''] = what.split(' ')
      if (verb === 'create' && !(error instanceof SlicenetError && error.code === 'NAME_TAKEN'))
        slices.delete(name)
    }
  )
}

function description({ world: { chance } }: Medium, name: string): SliceDescription {
  const count = chance.between(1, 3)
  const any = { protocol: 'tcp' } as const
  const ports = [[], [any], [{ ...any, port: chance.between(20_000, 20_007) }], [any, any]]
  return {
    name,
    count,
    minimum: chance.between(1, count),
    resources: amounts(chance.between(1, 2)),
    ports: chance.pick(ports),
    rights: [],
    leaseMs: chance.between(5, 120) * 1000,
    image: 'debian',
    renew: chance.happens(200),
    ...(chance.happens(300) ? { program: { argv: ['mesh'], env: {} } } : {}),
    files: chance.happens(150) ? [{ path: '/mesh', content: new Uint8Array(3), mode: 0o755 }] : []
  }
}

/** A demand that was seen is sent once more: as it was, with another nonce, or by somebody else. */
function presentAgain(medium: Medium, holder: HolderActor, process: Process, demands: Demands): void {
  const { chance } = medium.world
  const { host } = process
  const { to, method, params } = chance.pick(demands.recent())
  const seen = redeemObject.open(params['redeem'] as Uint8Array)
  const isOwn = seen.body.issuer === host.key.principal
  const redeem =
    isOwn && chance.happens(700)
      ? seen
      : redeemObject.sign({ ...seen.body, issuer: host.key.principal, nonce: chance.bytes(16) }, host.key)
  const { delegation, tickets } = params as { delegation: Uint8Array; tickets: Uint8Array[] }
  const call = medium.network.caller(process, nodeProtocol, to.key.principal)
  const again = { redeem: redeem.bytes, delegation, tickets }
  const work = call(method === 'renewLease' ? 'renewLease' : 'newLease', again, {
    signal: process.clock.timeout(30_000)
  })
  attempt(medium, holder, `present ${redeem === seen ? 'again' : 'as its own'}`, work)
}

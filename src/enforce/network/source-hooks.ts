/**
 * How frames of links come to the source check. Some kernels hook by the names of devices, also of those that are not there (6.18
 * does, 6.1 does not): then a few base chains are for many links, and stand before these. For others each link has one, made when
 * its device is there; and whenever one is added, the kernel looks at every rule that any of them leads to.
 */
import { LIMITS } from '../../base/limits.ts'
import { indexOfDevice, planLink } from './address-plan.ts'
import { kernelTakes } from './ruleset.ts'
import { FIRST_CHAIN, SOURCE_CHECK_TABLE } from './source-check.ts'

/** Names of one base chain. Each is read with its names by whoever changes any rule. */
const LINKS_PER_CHAIN = 64
/** Of no device: unlike `sl0` no driver would name one so, by which the kernel would seem to take any name. */
const NOWHERE = 'slicenet_nodev'

export class SourceHooks {
  readonly #isByName: boolean
  /** Chains of this node that stand. */
  readonly #standing = new Set<string>()

  constructor(isByName: boolean) {
    this.#isByName = isByName
  }

  /** Finds out what the kernel can do. Throws `HOST_PROGRAM_FAILED` where nft cannot tell. */
  static async find(): Promise<SourceHooks> {
    const probe = `add table netdev slicenet_probe\nadd chain netdev slicenet_probe hooked { ${hook([NOWHERE])} }`
    return new SourceHooks(await kernelTakes(probe, /No such file or directory/))
  }

  /** Lines for nft that lead frames of these links to the check, whose table must be there; renewing them leaves no gap. Devices must be there. */
  lines(indexes: readonly number[]): string[] {
    const chains = new Map(indexes.map((index) => this.#chainOf(index)).map((chain) => [chain.name, chain]))
    return [...chains.values()].flatMap(hookLines)
  }

  /** The same for one link, where it needs any. */
  missingLines(index: number): string[] {
    return this.#standing.has(this.#chainOf(index).name) ? [] : this.lines([index])
  }

  /** To be told when lines for these links were applied. */
  stand(indexes: readonly number[]): void {
    if (!this.#isByName) return
    for (const index of indexes) this.#standing.add(this.#chainOf(index).name)
  }

  /** Lines for nft that take away what only this link needs, whether or not it is there. The device must be gone before. */
  removalFor(device: string): string[] {
    return this.#isByName ? [] : chainRemoval(device)
  }

  /** Lines for nft that take away the chains of links that are not among these, and of all that need none. */
  strayRemoval(chains: readonly string[], devices: ReadonlySet<string>): string[] {
    const isStray = (chain: string): boolean => this.#isByName || !devices.has(chain)
    return chains
      .filter((chain) => indexOfDevice(chain) !== undefined && isStray(chain))
      .flatMap(chainRemoval)
  }

  #chainOf(index: number): HookChain {
    const { device } = planLink(index)
    if (!this.#isByName) return { name: device, devices: [device] }
    const first = index - (index % LINKS_PER_CHAIN)
    const indexes = Array.from({ length: LINKS_PER_CHAIN }, (_, at) => first + at)
    return {
      name: `links_from_${first}`,
      devices: indexes
        .filter((each) => each >= 1 && each <= LIMITS.linksPerNodeMax)
        .map((each) => planLink(each).device)
    }
  }
}

interface HookChain {
  readonly name: string
  readonly devices: readonly string[]
}

function hookLines({ name, devices }: HookChain): string[] {
  const chain = `${SOURCE_CHECK_TABLE} ${name}`
  return [
    `add chain ${chain} { ${hook(devices)} policy drop; }`,
    `flush chain ${chain}`,
    `add rule ${chain} goto ${FIRST_CHAIN}`
  ]
}

function hook(devices: readonly string[]): string {
  return `type filter hook ingress devices = { ${devices.map((device) => `"${device}"`).join(', ')} } priority -500;`
}

function chainRemoval(name: string): string[] {
  const chain = `${SOURCE_CHECK_TABLE} ${name}`
  return [
    // The kernel may have removed the chain with its device; adding first makes deleting certain.
    `add chain ${chain}`,
    `flush chain ${chain}`,
    `delete chain ${chain}`
  ]
}

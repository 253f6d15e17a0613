/** What was tried in vain while tickets are gathered, so that it is not tried again, and why. */
import type { SlicenetError } from '../base/errors.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Assignment } from './preference.ts'

/** An agent's refusal rules out that agent for that node; a node's own, the node; an agent's silence, the agent. */
export class FailedPairs {
  readonly #pairs = new Set<string>()
  readonly #nodes = new Set<Principal>()
  readonly #agents = new Set<Principal>()
  #last: SlicenetError | undefined

  addPair({ node, agent }: Assignment, reason: SlicenetError): void {
    this.#pairs.add(`${node} ${agent}`)
    this.#last = reason
  }

  addNode(node: Principal, reason: SlicenetError): void {
    this.#nodes.add(node)
    this.#last = reason
  }

  addAgent(agent: Principal, reason: SlicenetError): void {
    this.#agents.add(agent)
    this.#last = reason
  }

  has({ node, agent }: Assignment): boolean {
    return this.#nodes.has(node) || this.#agents.has(agent) || this.#pairs.has(`${node} ${agent}`)
  }

  /** The reason that came last. */
  get last(): SlicenetError | undefined {
    return this.#last
  }
}

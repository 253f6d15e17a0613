/** Which nodes a slice can be made of, and what is told when there are too few. */
import { SlicenetError } from '../base/errors.ts'
import type { Broker } from '../broker/broker.ts'
import type { FailedPairs } from '../broker/failed-pairs.ts'
import type { Matching } from '../broker/planning.ts'
import type { Explanation } from '../broker/requirements.ts'
import { clauseText } from '../query/clauses.ts'
import type { SliceDescription } from './slice.ts'
import { wantOf } from './slice-want.ts'

/** A slice of nothing is none, even when its description would have it. */
export function minimumOf({ minimum }: SliceDescription): number {
  return Math.max(1, minimum)
}

/** Whether its members must fulfil something together. */
export function isBound({ distinct, pairwise }: SliceDescription): boolean {
  return distinct !== undefined || pairwise !== undefined
}

/** The content of a slice's image where enough nodes match. Throws `NO_MATCH`, `IMAGE_MISSING`. */
export function requireEnough(description: SliceDescription, { explanations, image }: Matching): string {
  const matching = explanations.filter(({ matches }) => matches)
  const isOnlyImage = ({ failed }: Explanation): boolean =>
    failed.length === 1 && failed[0]?.clause === `image ${description.image}`
  if (image === undefined && explanations.some(isOnlyImage)) {
    throw new SlicenetError('IMAGE_MISSING', `no node that matches has an image ${description.image}`, {
      hint: 'run `slicenet find` to see which images nodes have; build one on a node with `slicenet image build`'
    })
  }
  if (image !== undefined && matching.length >= minimumOf(description)) return image
  const { minimum, count } = description
  const message =
    matching.length === 0
      ? `none of ${explanations.length} nodes matches`
      : `${matching.length} nodes match where ${minimum} of ${count} members are needed`
  throw noMatch(message, explanations)
}

/** The error of a slice that stayed below its minimum: what was refused last says why. */
export function shortfall(description: SliceDescription, got: number, failed: FailedPairs): SlicenetError {
  const message = `${got} of ${description.count} members could be had, ${minimumOf(description)} are needed`
  const reason = failed.last
  if (reason === undefined) {
    return new SlicenetError('NO_MATCH', `${message}: no agent offers enough on more nodes`, {
      hint: 'ask for less, or run `slicenet find` to see what is free'
    })
  }
  return new SlicenetError(reason.code, `${message}; ${reason.message}`, { cause: reason })
}

/** The same, of a slice for which nothing was refused: what stands in the way of a plan says why. */
export async function explainedShortfall(
  broker: Broker,
  description: SliceDescription,
  got: number,
  failed: FailedPairs,
  signal: AbortSignal | undefined
): Promise<SlicenetError> {
  if (failed.last !== undefined) return shortfall(description, got, failed)
  const { reason, rejections } = await broker.plan(
    wantOf(description),
    signal === undefined ? {} : { signal }
  )
  return reason === undefined ? shortfall(description, got, failed) : noMatch(reason, rejections)
}

/** Says of every node which conditions failed. */
function noMatch(
  message: string,
  nodes: readonly Pick<Explanation, 'node' | 'name' | 'failed'>[]
): SlicenetError {
  const details = nodes.flatMap(({ node, name, failed }) =>
    failed.length === 0 ? [] : [{ node, name, failed: failed.map(clauseText) }]
  )
  return new SlicenetError('NO_MATCH', message, { details: { nodes: details } })
}

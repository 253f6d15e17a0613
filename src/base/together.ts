/** Work on many things at a time that leaves none of it behind. */

/**
 * Like `Promise.all`, but a failure waits for the rest, so that nothing goes on behind the back of whoever cleans up.
 * Throws the first failure.
 */
export async function together<T>(work: readonly Promise<T>[]): Promise<T[]> {
  const outcomes = await Promise.allSettled(work)
  return outcomes.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason
    return outcome.value
  })
}

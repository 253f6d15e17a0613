/**
 * Removes directories that somebody else filled: whose depth is theirs, so that paths may be longer than the kernel takes at a
 * time, on which Node's own removal gives up. GNU rm goes down step by step.
 */
import { run } from '../base/host-program.ts'

const DEADLINE_MS = 10 * 60_000

/** Idempotent. Throws `HOST_PROGRAM_FAILED`. */
export async function removeTree(path: string): Promise<void> {
  await run('rm', ['--recursive', '--force', '--one-file-system', '--', path], { deadlineMs: DEADLINE_MS })
}

/**
 * What a program needs of the vserver it is to run in, looked up in the vserver's own files before anything is started,
 * so that a mistake is answered at once and by name.
 */
import { constants } from 'node:os'
import { SlicenetError } from '../base/errors.ts'
import { findUser } from './account.ts'
import { ociProcess, type OciProcessInit } from './oci-config.ts'
import { DEFAULT_PATH, findProgram, hasDirectory, withRoot } from './root-files.ts'
import { isErrno, SystemCallError } from './syscall.ts'

/**
 * The process object of a program. Throws `NOT_FOUND` for an account or a directory that the vserver lacks, and
 * `PROGRAM_NOT_FOUND`.
 */
export function lookUpProgram(rootFd: number, init: Omit<OciProcessInit, 'user'>): Record<string, unknown> {
  const { spec, program } = init
  const [argv0 = ''] = program.argv
  const cwd = program.cwd ?? '/'
  const user = findUser(rootFd, program.user)
  if (!hasDirectory(rootFd, cwd)) {
    throw new SlicenetError('NOT_FOUND', `vserver ${spec.id} has no directory ${JSON.stringify(cwd)}`)
  }
  if (findProgram(rootFd, argv0, program.env.PATH ?? DEFAULT_PATH, cwd) === undefined) {
    throw new SlicenetError(
      'PROGRAM_NOT_FOUND',
      `vserver ${spec.id} has no program ${JSON.stringify(argv0)}`,
      {
        hint: 'upload it, or use an image that has it'
      }
    )
  }
  return ociProcess({ ...init, user })
}

/** Works in a vserver's root. Throws `QUOTA_EXCEEDED` when its disk is full, `USAGE` for what cannot be done there. */
export function inVserverRoot<T>(id: string, rootPath: string, use: (rootFd: number) => T): T {
  try {
    return withRoot(rootPath, use)
  } catch (error) {
    if (isErrno(error, 'EDQUOT', 'ENOSPC') || isOutOfSpace(error)) {
      throw new SlicenetError('QUOTA_EXCEEDED', `the disk of vserver ${id} is full`, { cause: error })
    }
    if (error instanceof SystemCallError) {
      throw new SlicenetError('USAGE', `vserver ${id} does not take this file: ${error.message}`, {
        cause: error
      })
    }
    throw error
  }
}

/** Whether Node's own file functions failed for want of space; it has no name for EDQUOT. */
function isOutOfSpace(error: unknown): boolean {
  const number = error instanceof Error ? (error as NodeJS.ErrnoException).errno : undefined
  return number === -constants.errno.EDQUOT || number === -constants.errno.ENOSPC
}

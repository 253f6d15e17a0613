/** What the commands of organisations share: terms, names, and files that they write. */
import { writeFile } from 'node:fs/promises'
import { SlicenetError } from '../base/errors.ts'
import { durationUnit } from '../base/units.ts'
import type { CommandContext } from './command.ts'

/** Throws `USAGE`. */
export function durationOption(option: string, text: string): number {
  const ms = durationUnit.parse(text)
  if (ms !== undefined) return ms
  throw new SlicenetError('USAGE', `${option}: expected ${durationUnit.expected}; got ${text}`)
}

/** What was given, else what the configuration calls the organisation. Throws `USAGE`, `CONFIG_INVALID`. */
export async function organisationName(
  { environment }: CommandContext,
  given: string | undefined
): Promise<string> {
  if (given !== undefined) return given
  const { loadConfig } = await import('../daemon/config.ts')
  const { organisation } = await loadConfig(environment.configFile, { required: false })
  if (organisation !== 'none') return organisation
  throw new SlicenetError('USAGE', 'the organisation has no name', {
    hint: 'give `--name`, or set `organisation` in the configuration'
  })
}

/** Throws `NAME_TAKEN` rather than replace a file. */
export async function writeTextFile(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text, { flag: 'wx', mode: 0o600 })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') {
      throw new SlicenetError('NAME_TAKEN', `there is a file ${path} already`, { cause: error })
    }
    throw new SlicenetError('USAGE', `${path} cannot be written: ${code ?? 'unknown error'}`, {
      hint: 'give another file',
      cause: error
    })
  }
}

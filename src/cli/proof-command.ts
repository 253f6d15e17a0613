/** `slicenet proof …`: the proofs of fraud that this peer knows. */
import type { Command } from 'commander'
import { open } from 'node:fs/promises'
import { SlicenetError } from '../base/errors.ts'
import { findByPrefix } from '../daemon/prefix.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome } from './output.ts'
import { proofTable } from './proof-view.ts'
import { withSession } from './session.ts'

export function addProofCommand(root: Command, run: RunCommand): void {
  const proof = root.command('proof').description('look at the proofs of fraud that this peer knows')
  proof
    .command('list')
    .description('list them: who cheated, how, and who found out')
    .addHelpText('after', examples('slicenet proof list', 'slicenet proof list --json'))
    .action(() => run(list, QUESTION))
  proof
    .command('save')
    .description('write one with all its evidence to a new file, for anybody to check')
    .argument('<id>', 'the proof, or how its id begins')
    .argument('<file>', 'where to; - for standard output')
    .addHelpText(
      'after',
      examples(
        'slicenet proof save bafyreigh2akis mallory.proof',
        'slicenet ticket verify-proof mallory.proof'
      )
    )
    .action((id: string, file: string) => run((context) => save(context, id, file), QUESTION))
}

async function list(context: CommandContext): Promise<Outcome> {
  const { proofs } = await withSession(context, (call) => call('proofList', {}, { signal: context.signal }))
  return { document: { proofs }, text: (style) => proofTable(proofs, style) }
}

async function save(context: CommandContext, given: string, file: string): Promise<Outcome> {
  const { signal } = context
  const { id, bundle } = await withSession(context, async (call) => {
    const { proofs } = await call('proofList', {}, { signal })
    const { proof } = findByPrefix(proofs, given, { what: 'proof', namesOf: (one) => [one.proof] })
    return { id: proof, ...(await call('proofGet', { proof }, { signal })) }
  })
  // Base64 is what people paste, and `ticket verify-proof` reads it.
  const text = `${Buffer.from(bundle).toString('base64')}\n`
  if (file === '-') return { document: { proof: id, bundle: text.trimEnd() }, text: () => text }
  await write(file, text)
  return { document: { proof: id, file }, text: () => `${id} is in ${file}\n` }
}

async function write(file: string, text: string): Promise<void> {
  try {
    await using handle = await open(file, 'wx')
    await handle.writeFile(text)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST')
      throw new SlicenetError('NAME_TAKEN', `there is a file ${file} already`, { cause: error })
    throw new SlicenetError('USAGE', `${file} cannot be written: ${code ?? 'unknown error'}`, {
      cause: error
    })
  }
}

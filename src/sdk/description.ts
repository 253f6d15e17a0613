/** Slice descriptions as programs give them: checked here, so that a mistake is told as one and not as a broken call. */
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
import { sliceDescriptionSchema, type SliceDescription } from '../service/slice.ts'

/** As `parseSliceFile` gives it, or as `loadSliceDescription` does with the content of its files. */
export type SliceWish = Omit<SliceDescription, 'files'> & Partial<Pick<SliceDescription, 'files'>>

/** Throws `SLICE_FILE_INVALID`, naming every field that is wrong. */
export function describe(wish: SliceWish): SliceDescription {
  const checked = v.safeParse(sliceDescriptionSchema, { ...wish, files: wish.files ?? [] })
  if (checked.success) return checked.output
  const problems = checked.issues.map((issue) => ({
    field: v.getDotPath(issue) ?? 'slice',
    message: issue.message
  }))
  const [first] = problems
  throw new SlicenetError('SLICE_FILE_INVALID', `slice description: ${first?.field}: ${first?.message}`, {
    hint: 'correct what the message names; `docs/cli.md` says what a slice is described by',
    details: { problems }
  })
}

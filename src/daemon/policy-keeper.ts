/** Keeps an agent to the policy of its file. */
import type { AdmissionPolicy } from '../agent/admission-policy.ts'
import { LIMITS } from '../base/limits.ts'
import { FILE_POLL_MS, FollowedFile, type FollowedFileComponents } from './followed-file.ts'
import { parsePolicy } from './policy-file.ts'

export const POLICY_POLL_MS = FILE_POLL_MS

export class PolicyKeeper extends FollowedFile<AdmissionPolicy> {
  constructor(components: FollowedFileComponents<AdmissionPolicy>, init: { readonly file: string }) {
    super(components, {
      ...init,
      what: 'policy',
      bytesMax: LIMITS.policyFileBytesMax,
      parse: parsePolicy,
      told: ({ rules }) => ({ rules: rules.map(({ name }) => name) })
    })
  }
}

/** What the control socket has for administrators of nodes. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { auditEntrySchema, type AuditEntry } from '../node/audit-trail.ts'

export type { AuditEntry }

export const auditMethods = {
  /** Of a node: the last entries of the audit trail of administrative slices, the latest last. Throws `NOT_FOUND`. */
  leaseAudit: {
    params: v.strictObject({
      last: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(LIMITS.auditReadMax))
    }),
    result: v.strictObject({ entries: v.array(auditEntrySchema) })
  }
} as const

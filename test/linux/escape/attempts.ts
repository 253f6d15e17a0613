/** All attempts that are made from inside of a vserver and harm no machine. */
import type { Attempt } from './attempt.ts'
import { DEVICE_ATTEMPTS, MOUNT_ATTEMPTS, OWNER_ATTEMPTS } from './files.ts'
import { KERNEL_CALL_ATTEMPTS } from './kernel-calls.ts'
import { PROCESS_ATTEMPTS } from './processes.ts'
import { SETTING_ATTEMPTS } from './settings.ts'

export const ATTEMPTS: readonly Attempt[] = [
  ...SETTING_ATTEMPTS,
  ...KERNEL_CALL_ATTEMPTS,
  ...PROCESS_ATTEMPTS,
  ...DEVICE_ATTEMPTS,
  ...MOUNT_ATTEMPTS,
  ...OWNER_ATTEMPTS
]

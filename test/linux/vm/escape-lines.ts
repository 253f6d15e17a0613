/** What is tried in a virtual machine, and the lines of JSON that its guest tells of it. */
import type { Attempt } from '../escape/attempt.ts'
import { ATTEMPTS } from '../escape/attempts.ts'
import { HARMFUL_ATTEMPTS } from '../escape/harmful.ts'
import type { Told, VserverName } from '../escape/lab.ts'

export type EscapeLine =
  /** `where` is a vserver's name, or the control. */
  | { readonly kind: 'told'; readonly name: string; readonly where: string; readonly told: Told }
  /** For the name of an attempt that ends the machine, to be made in its control. */
  | { readonly kind: 'waiting' }

export const VSERVERS: readonly VserverName[] = ['plain', 'with-rights']
export const IN_CONTROL = 'control'

export const MACHINE_ATTEMPTS: readonly Attempt[] = [...ATTEMPTS, ...HARMFUL_ATTEMPTS].filter(
  ({ inVirtualMachine }) => inVirtualMachine === true
)

/** A logger whose errors a test can look at. */
import { systemClock } from '../../src/base/clock.ts'
import { createLogger, type Logger } from '../../src/base/log.ts'

export interface RecordedErrors {
  /** Lines of JSON. */
  readonly errors: readonly string[]
  readonly logger: Logger
}

export function recordErrors(): RecordedErrors {
  const errors: string[] = []
  const write = (line: string): void => void errors.push(line)
  return { errors, logger: createLogger({ level: 'error', write, clock: systemClock }) }
}

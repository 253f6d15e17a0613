/**
 * Structured logging: one JSON object a line, on a sink that the program chooses (stderr for the daemon). Secrets
 * never go in; fields are JSON values.
 */
import type { Clock } from './clock.ts'

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]
export type LogFields = Readonly<Record<string, unknown>>

export interface Logger {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
  /** A logger whose lines carry `room` as well. */
  child(room: string): Logger
}

export interface LoggerInit {
  readonly level: LogLevel
  readonly write: (line: string) => void
  readonly clock: Clock
  readonly room?: string
}

export function createLogger(init: LoggerInit): Logger {
  const threshold = LOG_LEVELS.indexOf(init.level)
  const emit = (level: LogLevel, message: string, fields?: LogFields): void => {
    if (LOG_LEVELS.indexOf(level) < threshold) return
    const time = new Date(init.clock.now()).toISOString()
    init.write(`${JSON.stringify({ time, level, room: init.room, message, ...flatten(fields) })}\n`)
  }
  return {
    debug: (message, fields) => emit('debug', message, fields),
    info: (message, fields) => emit('info', message, fields),
    warn: (message, fields) => emit('warn', message, fields),
    error: (message, fields) => emit('error', message, fields),
    child: (room) => createLogger({ ...init, room })
  }
}

/** A logger that drops everything; the default of unit tests. */
export const silentLogger: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLogger
}

/** Errors do not survive JSON.stringify by themselves. */
function flatten(fields: LogFields = {}): Record<string, unknown> {
  const flat: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(fields)) {
    flat[key] = value instanceof Error ? `${value.name}: ${value.message}` : value
  }
  return flat
}

/** The signals that a launched program can be sent. */
export const PROGRAM_SIGNALS = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGUSR1',
  'SIGUSR2',
  'SIGTERM',
  'SIGKILL',
  'SIGSTOP',
  'SIGCONT',
  'SIGWINCH'
] as const
export type ProgramSignal = (typeof PROGRAM_SIGNALS)[number]

/** A whole overlay on one machine, for trying and testing: what the CLI asks of it. */

export interface DevnetHost {
  readonly name: string
  /** `node`, `agent`, `boot`; none for a researcher's peer. */
  readonly roles: readonly string[]
  readonly address: string
  readonly state: string
  readonly socketPath: string
}

export interface DevnetView {
  readonly name: string
  readonly directory: string
  readonly hosts: readonly DevnetHost[]
}

export interface Devnet {
  readonly devnetUp: (init: {
    readonly name: string
    readonly nodes: number
    readonly agents: number
    readonly directory?: string
    readonly signal: AbortSignal
    readonly onProgress: (message: string) => void
  }) => Promise<DevnetView>
  readonly devnetDown: (init: {
    readonly name: string
    readonly onProgress: (message: string) => void
  }) => Promise<void>
  readonly devnetStatus: (name: string) => Promise<DevnetView>
  /** Runs a program on a host with the terminal's streams, and gives its exit code. */
  readonly devnetExec: (init: {
    readonly name: string
    readonly host?: string
    readonly argv: readonly string[]
  }) => Promise<number>
}

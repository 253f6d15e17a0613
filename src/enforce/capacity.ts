/** What this machine can give to vservers: measured, then capped by the node's policy. */
import { readFile } from 'node:fs/promises'
import { arch, availableParallelism, release, totalmem } from 'node:os'
import { LIMITS } from '../base/limits.ts'
import type { Resources } from '../ticket/resources.ts'
import type { EnforcerCapacity } from './enforcer.ts'

/** The host's own programs keep the rest. */
const MEMORY_SHARE = 0.9
const PIDS = 16_384
/** Nobody can measure an uplink from inside: unless the policy says otherwise, 100 Mbit/s and 100 GB a day. */
const EGRESS_BPS = 100_000_000
const EGRESS_BYTES_PER_DAY = 100_000_000_000

export interface CapacityInit {
  /** Upper bounds; for `egress…`, which are not measured, the values themselves. */
  readonly policy: Partial<Resources>
  readonly diskBytes: number
  /** Such as `oci/runc`. */
  readonly monitor: string
}

export function measureCapacity(init: CapacityInit): EnforcerCapacity {
  const { policy } = init
  const cap = (measured: number, bound: number | undefined): number =>
    Math.floor(bound === undefined ? measured : Math.min(measured, bound))
  const cpuMillis = availableParallelism() * 1000
  const egressBps = policy.egressBps ?? EGRESS_BPS
  return {
    resources: {
      cpuMillis: cap(cpuMillis, policy.cpuMillis),
      cpuMillisMax: cap(cpuMillis, policy.cpuMillisMax),
      memoryBytes: cap(totalmem() * MEMORY_SHARE, policy.memoryBytes),
      diskBytes: cap(init.diskBytes, policy.diskBytes),
      egressBps,
      egressBpsMax: policy.egressBpsMax ?? egressBps,
      egressBytesPerDay: policy.egressBytesPerDay ?? EGRESS_BYTES_PER_DAY,
      pids: cap(PIDS, policy.pids)
    },
    attributes: {
      os: 'linux',
      kernel: release(),
      arch: arch(),
      monitor: init.monitor
    }
  }
}

/** What a process in a vserver may have open: as many as this one may, who could not give more. */
export async function openFilesPerProcess(): Promise<number> {
  const limits = await readFile('/proc/self/limits', 'utf8')
  const hard = Number(/^Max open files +\S+ +(\d+)/m.exec(limits)?.[1] ?? LIMITS.openFilesPerProcessMax)
  return Math.min(hard, LIMITS.openFilesPerProcessMax)
}

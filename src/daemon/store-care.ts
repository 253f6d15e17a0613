/** Looking after the state on disk while no daemon has it open, for the CLI. */
import { join } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { checkStore, type StoreReport } from '../store/check-store.ts'
import { repairStore, type RepairReport } from '../store/repair-store.ts'
import type { Environment } from './environment.ts'

export type { RepairReport, StoreReport }

/** Where a daemon of this environment keeps its store. */
export function storeDirectory({ stateDirectory }: Environment): string {
  return join(stateDirectory, 'store')
}

/** Reads only. Throws `NOT_FOUND` where no daemon ever ran, `STORE_FAILED`. */
export async function checkState(environment: Environment): Promise<StoreReport> {
  return checkStore(storeDirectory(environment))
}

/** What a report means for a daemon that is to start; `undefined` when it can. */
export function stateError(report: StoreReport): SlicenetError | undefined {
  if (!report.fatal) return undefined
  return new SlicenetError('STORE_CORRUPT', report.message, {
    hint: 'keep a copy of the directory, then run `slicenet store repair`, which says what it cannot keep'
  })
}

/** Throws `NOT_FOUND`, `STORE_LOCKED` while a daemon runs, `STORE_FAILED`. */
export async function repairState(environment: Environment): Promise<RepairReport> {
  return repairStore(storeDirectory(environment))
}

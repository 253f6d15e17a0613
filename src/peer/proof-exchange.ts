/**
 * Proofs of fraud by exchange: peers say of which frauds they have a proof and fetch what they lack, when they meet and
 * now and then. So everybody hears of them, whether awake when they were told or not.
 */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Principal } from '../ticket/principal.ts'
import type { ProofTable } from './proof-table.ts'
import { proofKey } from './proof-table.ts'
import type { DirectoryCaller, DirectoryHandlers } from './pull.ts'

/** What other peers may ask of this one's proofs. */
export function proofHandlers(
  table: ProofTable
): Pick<DirectoryHandlers, 'proofs' | 'getProofs' | 'giveProof'> {
  return {
    // oxlint-disable-next-line typescript/require-await -- handlers are asynchronous.
    proofs: async () => ({ keys: table.all().map(({ finding }) => proofKey(finding)) }),
    getProofs: async ({ keys }, { emit }) => {
      for (const key of keys) {
        const bundle = table.get(key)
        if (bundle !== undefined) await emit({ bundle: bundle.bytes })
      }
      return {}
    },
    // oxlint-disable-next-line typescript/require-await -- handlers are asynchronous.
    giveProof: async ({ bundle }, { principal }) => {
      const verdict = table.offer(bundle, principal)
      if (verdict === 'invalid') throw new SlicenetError('PROOF_INVALID', 'what was given proves nothing')
      return { accepted: verdict === 'new' }
    }
  }
}

/**
 * Fetches some of the proofs that the other peer has and this one lacks. Gives how many were news. Throws what calls
 * throw, and `PROOF_INVALID` when one of them proves nothing.
 */
export async function pullProofs(
  table: ProofTable,
  call: DirectoryCaller,
  from: Principal,
  options: { readonly signal: AbortSignal }
): Promise<number> {
  const { keys } = await call('proofs', {}, options)
  const lacking = keys.filter((key) => table.get(key) === undefined).slice(0, LIMITS.proofsPerMessageMax)
  if (lacking.length === 0) return 0
  let news = 0
  await call(
    'getProofs',
    { keys: lacking },
    {
      ...options,
      onItem: ({ bundle }) => {
        const verdict = table.offer(bundle, from)
        if (verdict === 'invalid') throw new SlicenetError('PROOF_INVALID', `${from} has a proof of nothing`)
        if (verdict === 'new') news += 1
      }
    }
  )
  return news
}

/**
 * Discovery: a hundred real peers in this process, and simulated overlays of up to ten thousand with the same directory
 * code, whose costs of the wire were measured between real peers; both are printed for a hundred, to be compared.
 */
import { queries } from './discovery/queries.ts'
import { realPeers } from './discovery/real.ts'
import { simulated } from './discovery/simulated.ts'
import type { Bench } from './figure.ts'

export const discovery: Bench = async (context) => [
  // The simulation opens every advert once only, for good, so it comes last.
  ...(await realPeers(context)),
  ...(await queries(context)),
  ...(await simulated(context))
]

/** Which of the peers at hand to measure: by chance, but mostly such as this peer sought itself. Pure. */
import { fraction, type Random } from '../base/random.ts'
import type { Principal } from '../ticket/principal.ts'

/** Anybody can come in great numbers; whom this peer dialed it chose. So many of four are of these. */
const DIALED_OF_FOUR = 3

export interface Partner {
  readonly principal: Principal
  /** Whether this peer opened a connection to it. */
  readonly isDialed: boolean
}

/** Up to `count` different ones. */
export function choosePartners(
  partners: readonly Partner[],
  count: number,
  random: Random
): readonly Principal[] {
  const left = [...partners]
  const chosen: Principal[] = []
  while (chosen.length < count && left.length > 0) {
    const dialed = left.filter(({ isDialed }) => isDialed)
    const pool = dialed.length > 0 && fraction(random) * 4 < DIALED_OF_FOUR ? dialed : left
    const partner = pool[Math.floor(fraction(random) * pool.length)]
    if (partner === undefined) break
    left.splice(left.indexOf(partner), 1)
    chosen.push(partner.principal)
  }
  return chosen
}

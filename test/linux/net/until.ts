/** Waits for what the node does by itself. */
import { setTimeout as delay } from 'node:timers/promises'

/** Whether it comes true within ten seconds or so. */
export async function until(condition: () => Promise<boolean>): Promise<boolean> {
  for (let round = 0; round < 100; round++) {
    if (await condition()) return true
    await delay(100)
  }
  return false
}

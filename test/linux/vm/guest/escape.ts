/**
 * Runs in a virtual machine: makes attempts to get out of vservers, says as JSON lines what came of each, and then waits to
 * be told which of those that end the machine to make in their control.
 */
import { readFile } from 'node:fs/promises'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Attempt } from '../../escape/attempt.ts'
import { EscapeLab, type Told } from '../../escape/lab.ts'
import { IN_CONTROL, MACHINE_ATTEMPTS, VSERVERS, type EscapeLine } from '../escape-lines.ts'
import { MODULE_PATH, SPARE_MODULE } from '../initramfs.ts'

function say(line: EscapeLine): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

/** Makes attempts in the vservers first: what their control does may show in those. */
async function make(lab: EscapeLab, attempts: readonly Attempt[]): Promise<void> {
  const tell = (made: readonly Attempt[], where: string, told: readonly Told[]): void => {
    for (const [index, { name }] of made.entries()) say({ kind: 'told', name, where, told: told[index]! })
  }
  await Promise.all(VSERVERS.map(async (id) => tell(attempts, id, await lab.tryAllInVserver(id, attempts))))
  const byControl = Map.groupBy(
    attempts.filter(({ endsMachine }) => endsMachine === undefined),
    ({ without }) => [...without].sort().join(' ')
  )
  for (const made of byControl.values()) {
    tell(made, IN_CONTROL, await lab.tryAllInControl(made as [Attempt, ...Attempt[]]))
  }
}

async function main(): Promise<void> {
  const lab = await EscapeLab.start({
    vservers: VSERVERS,
    env: { HOST_MODULE: (await readFile(MODULE_PATH)).toString('hex'), HOST_MODULE_NAME: SPARE_MODULE }
  })
  await make(lab, MACHINE_ATTEMPTS)
  const orders = createInterface({ input: process.stdin })
  say({ kind: 'waiting' })
  const [name] = (await once(orders, 'line')) as [string]
  const attempt = MACHINE_ATTEMPTS.find((candidate) => candidate.name === name)!
  say({ kind: 'told', name, where: IN_CONTROL, told: await lab.tryInControl(attempt) })
  process.exit()
}

await main()

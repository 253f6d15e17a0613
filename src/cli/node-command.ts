/** `slicenet node …`: what the administrator of this node asks it. */
import type { Command } from 'commander'
import type { RunCommand } from './command.ts'
import { addNodeFlowCommands } from './node-flow-command.ts'

export function addNodeCommand(root: Command, run: RunCommand): void {
  const node = root.command('node').description('look after this node')
  addNodeFlowCommands(node, run)
}

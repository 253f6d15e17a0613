/** The fake monitor, which fails or stalls when the test says so. It outlives the node managers over it. */
import { SlicenetError } from '../../src/base/errors.ts'
import type { VserverSpec, VserverStatus } from '../../src/enforce/enforcer.ts'
import { FakeEnforcer } from '../../src/enforce/fake-enforcer.ts'

export class FaultyEnforcer extends FakeEnforcer {
  /** How many of the next calls fail. */
  createsToFail = 0
  destroysToFail = 0
  launchesToFail = 0
  /** Awaited by each `create`, and each `destroy`, before it does anything. */
  createGate: Promise<void> | undefined
  destroyGate: Promise<void> | undefined
  readonly created: VserverSpec[] = []
  readonly destroyed: string[] = []

  override async create(spec: VserverSpec): Promise<VserverStatus> {
    await this.createGate
    this.created.push(spec)
    if (this.createsToFail-- > 0) throw new SlicenetError('HOST_PROGRAM_FAILED', 'create was to fail')
    return super.create(spec)
  }

  override async launch(...args: Parameters<FakeEnforcer['launch']>): Promise<void> {
    if (this.launchesToFail-- > 0) throw new SlicenetError('VSERVER_FAILED', 'launch was to fail')
    await super.launch(...args)
  }

  override async destroy(id: string): Promise<void> {
    await this.destroyGate
    if (this.destroysToFail-- > 0) throw new SlicenetError('HOST_PROGRAM_FAILED', 'destroy was to fail')
    this.destroyed.push(id)
    await super.destroy(id)
  }

  /** Ids of what runs. */
  async running(): Promise<string[]> {
    return (await this.list()).map(({ id }) => id).sort()
  }
}

/**
 * The node's answers to holders of administrative slices, each of which is noted before it is given and when it was: so
 * nothing is done for them that the node's administrator could not read of later.
 */
import { asSlicenetError } from '../base/errors.ts'
import type { ProgramSpec } from '../enforce/enforcer.ts'
import type { Call, Handlers } from '../protocol/method.ts'
import type { nodeProtocol } from '../protocol/node-protocol.ts'
import { isAdministrative } from '../ticket/rights.ts'
import { subjectOf, type AuditAct, type AuditDetails, type AuditTrail } from './audit-trail.ts'
import type { NodeManager } from './node-manager.ts'

type NodeHandlers = Handlers<typeof nodeProtocol.methods>
type Audited = Extract<AuditAct, keyof NodeHandlers>

/** What is told of each call; never a program's environment, which may hold secrets. */
const DETAILS: { readonly [M in Audited]: (params: Parameters<NodeHandlers[M]>[0]) => AuditDetails } = {
  upload: ({ files }) => ({
    files: files.map(({ path, content, mode }) => `${path} ${content.length} bytes ${mode.toString(8)}`)
  }),
  launch: ({ program }) => programDetails(program),
  exec: ({ program }) => programDetails(program),
  stop: () => ({}),
  signal: ({ signal }) => ({ signal }),
  freeze: () => ({}),
  thaw: () => ({}),
  addKey: ({ key }) => ({ key }),
  delKey: ({ key }) => ({ key })
}

export function auditedHandlers(
  handlers: NodeHandlers,
  components: { readonly manager: NodeManager; readonly audit: AuditTrail }
): NodeHandlers {
  const audited = Object.fromEntries(
    (Object.keys(DETAILS) as Audited[]).map((method) => [
      method,
      auditedHandler(method, handlers, components)
    ])
  )
  return { ...handlers, ...audited }
}

/** Of all methods at once, which differ in what they are told and say. */
type AnyHandler = (params: { readonly lease: string }, call: Call<never, never>) => Promise<object>

function auditedHandler(
  method: Audited,
  handlers: NodeHandlers,
  { manager, audit }: { readonly manager: NodeManager; readonly audit: AuditTrail }
): AnyHandler {
  const handler = handlers[method] as AnyHandler
  const detailsOf = DETAILS[method] as (params: object) => AuditDetails
  return async (params, call) => {
    const record = manager.held(params.lease, call.principal)
    if (!isAdministrative(record.lease.body.rights)) return handler(params, call)
    const subject = subjectOf(record)
    const details = detailsOf(params)
    await audit.note(subject, method, 'begins', details)
    // What is done is done, whether or not its end can be noted: its beginning was.
    const noteEnd = async (outcome: string, more: AuditDetails = {}): Promise<void> =>
      audit.note(subject, method, outcome, { ...details, ...more }).catch(() => {})
    let result: object
    try {
      result = await handler(params, call)
    } catch (error) {
      await noteEnd(asSlicenetError(error).code)
      throw error
    }
    await noteEnd('done', 'exitCode' in result ? { exitCode: Number(result.exitCode) } : {})
    return result
  }
}

function programDetails({ argv, user, cwd, restart }: ProgramSpec): AuditDetails {
  return {
    argv: [...argv],
    ...(user === undefined ? {} : { user }),
    ...(cwd === undefined ? {} : { cwd }),
    ...(restart === undefined ? {} : { restart })
  }
}

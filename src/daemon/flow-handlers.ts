/** What the daemon of a node answers about the flows of its vservers. */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { FlowRecord } from '../node/flow-record.ts'
import type { FlowEntry, Unwatched } from '../node/flow-entries.ts'
import { findCulprit, readFlows } from '../node/flow-search.ts'
import type { Handlers } from '../protocol/method.ts'
import { logRootObject } from '../ticket/log-root.ts'
import type { PeerParts } from './compose.ts'
import type { ControlMethods } from './control-client.ts'

type FlowMethod = 'nodeFlows' | 'nodeWhois' | 'nodeAuditVerify' | 'nodeAuditRoot'

export function flowHandlers(parts: () => PeerParts): Pick<Handlers<ControlMethods>, FlowMethod> {
  const record = (): FlowRecord => {
    const { node } = parts()
    if (node !== undefined) return node.flows
    throw new SlicenetError('NOT_FOUND', 'this peer is no node, so there are no flows of vservers')
  }
  return {
    async nodeFlows(interval, { emit, signal }) {
      let batch: (FlowEntry | Unwatched)[] = []
      await record().write({ all: true })
      for await (const flow of readFlows(record(), interval)) {
        signal.throwIfAborted()
        batch.push(flow)
        if (batch.length < LIMITS.flowsPerAnswerMax) continue
        await emit({ flows: batch })
        batch = []
      }
      if (batch.length > 0) await emit({ flows: batch })
      return {}
    },
    async nodeWhois(complaint) {
      // What goes on now is answered for as well.
      await record().write({ all: true })
      const { flows, owners, unwatched } = await findCulprit(record(), complaint)
      return { flows: [...flows], owners: [...owners], unwatched: [...unwatched] }
    },
    async nodeAuditVerify({ root }) {
      const others = root === undefined ? [] : [logRootObject.open(root)]
      const { faults, unwatched, ...verdict } = await record().verify(others)
      return { ...verdict, faults: [...faults], unwatched: [...unwatched] }
    },
    async nodeAuditRoot({ sign }) {
      if (sign) await record().sign()
      const root = record().root()
      if (root === undefined) {
        throw new SlicenetError('NOT_FOUND', 'nothing of the record of flows has been signed yet', {
          hint: 'it is signed every hour, and with --sign'
        })
      }
      return { root: root.bytes, time: root.body.notAfter, piece: root.body.head.sequence }
    }
  }
}

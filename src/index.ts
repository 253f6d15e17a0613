/** What programs import from slicenet: a client of the daemon or of a peer of their own, slice descriptions, and the errors. */
export { ERROR_CODES, SlicenetError, isErrorCode } from './base/errors.ts'
export type { ErrorCode, ErrorInit, ErrorJson } from './base/errors.ts'
export { connect } from './sdk/client.ts'
export type { CallSettings, Client, ClientInit, EmbeddedSettings, ProgressSettings } from './sdk/client.ts'
export type { SliceWish } from './sdk/description.ts'
export type { DiscoverSettings, NodeEvent } from './sdk/discovery.ts'
export type { Execution, ExecSettings, OutputChunk } from './sdk/execution.ts'
export type { LogEntry, LogSettings, MemberName, SliceHandle } from './sdk/slice-handle.ts'
export type { PlanSettings, SlicePlan } from './sdk/plan.ts'
export type { SliceEventMap } from './sdk/slice-listeners.ts'
export type { SliceEvent } from './service/slice-event.ts'
export { loadSliceDescription } from './daemon/slice-source.ts'
export { parseSliceFile } from './service/slice-file.ts'
export type { ParsedSliceFile, SliceFileSource } from './service/slice-file.ts'
export type {
  MemberView,
  Progress,
  RenewalView,
  RenewedMember,
  SliceDescription,
  SliceView
} from './service/slice.ts'
export type { LeaseView, NodeView, PlannedMemberView, StatusView } from './daemon/control-protocol.ts'
export type { FailedClause, Rejection } from './protocol/broker-protocol.ts'
export type { PortRange } from './ticket/ports.ts'
export type { Principal } from './ticket/principal.ts'
export type { Resources } from './ticket/resources.ts'

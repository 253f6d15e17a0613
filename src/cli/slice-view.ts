/** Slices and their members as text for people. */
import { SlicenetError } from '../base/errors.ts'
import { durationUnit } from '../base/units.ts'
import type { ControlResult } from '../daemon/control-client.ts'
import type { LeaseView } from '../daemon/control-protocol.ts'
import type { Style } from './output.ts'
import { formatFields, formatTable, formatTime, shortId } from './table.ts'

export type SliceView = ControlResult<'sliceShow'>
export type RenewalView = ControlResult<'sliceRenew'>
export type MemberView = SliceView['members'][number]
type MemberReason = NonNullable<RenewalView['members'][number]['reason']>

export function formatPorts(ports: LeaseView['ports']): string {
  const shown = ports.map(({ protocol, first, last }) =>
    first === last ? `${protocol}/${first}` : `${protocol}/${first}-${last}`
  )
  return shown.join(',') || '-'
}

export function sliceTable(slices: readonly SliceView[], style: Style): string {
  if (slices.length === 0) return 'No slices.\n'
  const rows = slices.map((slice) => [
    slice.name,
    slice.state,
    `${slice.members.length}/${slice.count}`,
    formatTime(slice.createdAt),
    slice.notAfter === undefined ? '-' : formatTime(slice.notAfter)
  ])
  return formatTable(['SLICE', 'STATE', 'MEMBERS', 'CREATED', 'ENDS'], rows, style)
}

export function sliceText(slice: SliceView, style: Style): string {
  const fields = formatFields([
    ['slice', slice.name],
    ['state', slice.state],
    ['members', `${slice.members.length} of ${slice.count}`],
    ['created', formatTime(slice.createdAt)],
    ['ends', slice.notAfter === undefined ? '-' : formatTime(slice.notAfter)],
    ...(slice.renew ? ([['renewed', 'by itself, when a third of the term is left']] as const) : [])
  ])
  return slice.members.length === 0 ? fields : `${fields}\n${memberTable(slice.members, style)}`
}

/** Of each member when its lease ends now, and why it was not renewed. */
export function renewalText({ slice, notAfter, members }: RenewalView, style: Style): string {
  const rows = members.map((member) => [
    member.nodeName,
    shortId(member.node),
    shortId(member.lease),
    formatTime(member.notAfter),
    member.reason === undefined ? 'renewed' : `${member.reason.code}: ${member.reason.message}`
  ])
  const table = formatTable(['MEMBER', 'NODE', 'LEASE', 'ENDS', 'OUTCOME'], rows, style)
  return `${formatFields([
    ['slice', slice],
    ['ends', formatTime(notAfter)]
  ])}\n${table}`
}

function memberTable(members: readonly MemberView[], style: Style): string {
  const rows = members.map((member) => [
    member.nodeName,
    shortId(member.node),
    stateText(member),
    member.address,
    formatPorts(member.ports),
    member.vserver,
    shortId(member.lease),
    member.agentName,
    formatTime(member.notAfter)
  ])
  const header = ['MEMBER', 'NODE', 'STATE', 'ADDRESS', 'PORTS', 'VSERVER', 'LEASE', 'AGENT', 'ENDS']
  return formatTable(header, rows, style)
}

function stateText({ state, exitCode, restarts, frozen, egressNarrowed }: MemberView): string {
  const remarks = [
    ...(exitCode === undefined ? [] : [exitCode]),
    ...(restarts === undefined ? [] : [`${restarts} ${restarts === 1 ? 'restart' : 'restarts'}`]),
    ...(frozen === undefined ? [] : ['frozen']),
    ...(egressNarrowed === undefined ? [] : ['egress narrowed'])
  ]
  return remarks.length === 0 ? state : `${state} (${remarks.join(', ')})`
}

export function progressLine(progress: { step: string; message: string; ms?: number | undefined }): string {
  const took = progress.ms === undefined ? '' : ` (${durationUnit.format(progress.ms)})`
  return `${progress.step}: ${progress.message}${took}`
}

/** The error that a command ends with after `what`, which a member gave the reason for. */
export function memberError({ code, message, hint }: MemberReason, what: string): SlicenetError {
  return new SlicenetError(code, `${what}: ${message}`, hint === undefined ? {} : { hint })
}

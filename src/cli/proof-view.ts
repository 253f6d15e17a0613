/** Proofs of fraud as text for people. */
import { byteUnit, cpuUnit } from '../base/units.ts'
import type { InspectedObject } from '../daemon/inspection.ts'
import type { ProofView, VerifiedProof } from '../daemon/proof-view.ts'
import type { Style } from './output.ts'
import { formatFields, formatTable, formatTime, shortId } from './table.ts'

export function proofTable(proofs: readonly ProofView[], style: Style): string {
  if (proofs.length === 0) return 'No proof of fraud is known.\n'
  const rows = proofs.map((proof) => [
    shortId(proof.proof),
    proof.kind,
    proof.accused,
    shortId(proof.finder),
    formatTime(proof.notBefore),
    formatTime(proof.notAfter),
    proof.message
  ])
  return formatTable(['PROOF', 'KIND', 'ACCUSED', 'FOUND BY', 'FOUND', 'KEPT UNTIL', 'WHAT'], rows, style)
}

export function verifiedText({ proof, evidence }: VerifiedProof, style: Style): string {
  const fields = formatFields([
    ['proof', proof.proof],
    ['kind', proof.kind],
    ['accused', proof.accused],
    ['found by', proof.finder],
    ['found', formatTime(proof.notBefore)],
    ['proven', proof.message]
  ])
  return `${fields}\n${evidenceTable(evidence, style)}`
}

function evidenceTable(evidence: readonly InspectedObject[], style: Style): string {
  const rows = evidence.map(({ type, id, signer, body }) => [
    type,
    shortId(id),
    shortId(signer),
    text(body['seq']),
    shortId(text(body['holder'])),
    text(body['slice']),
    amounts(body),
    ports(body['ports']),
    time(body['notBefore']),
    time(body['notAfter'])
  ])
  const header = ['EVIDENCE', 'ID', 'SIGNER', 'SEQ', 'HOLDER', 'SLICE', 'AMOUNT', 'PORTS', 'FROM', 'TO']
  return formatTable(header, rows, style)
}

function text(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '-'
}

function time(value: unknown): string {
  return typeof value === 'number' ? formatTime(value) : '-'
}

/** CPU and memory of a delegation, ticket or lease; of an advert what the node has. */
function amounts(body: InspectedObject['body']): string {
  const resources = (body['resources'] ?? body['capacity']) as Readonly<Record<string, unknown>> | undefined
  const { cpuMillis, memoryBytes } = resources ?? {}
  if (typeof cpuMillis !== 'number' || typeof memoryBytes !== 'number') return '-'
  return `${cpuUnit.format(cpuMillis)} ${byteUnit.format(memoryBytes)}`
}

const PORTS_SHOWN = 3

function ports(value: unknown): string {
  const ranges = Array.isArray(value) ? (value as { protocol: string; first: number; last: number }[]) : []
  const shown = ranges
    .slice(0, PORTS_SHOWN)
    .map(({ protocol, first, last }) => `${protocol}/${first === last ? first : `${first}-${last}`}`)
  const more = ranges.length > PORTS_SHOWN ? [`and ${ranges.length - PORTS_SHOWN} more`] : []
  return [...shown, ...more].join(',') || '-'
}

/**
 * Reads the YAML policy of an agent: rules in order and a default, strict about fields, names and units, and exact about
 * where a mistake is. Pure.
 */
import * as v from 'valibot'
import { TICKETS_PER_HOLDER } from '../agent/admission-policy.ts'
import type { AdmissionPolicy, AdmissionRule, Quota, Terms } from '../agent/admission-policy.ts'
import { LIMITS } from '../base/limits.ts'
import { byteUnit, cpuUnit, durationUnit, rateUnit } from '../base/units.ts'
import { readShaping } from '../service/slice-file-shaping.ts'
import { openYaml, type YamlMap, type YamlValue } from '../service/yaml-reader.ts'
import type { Accepts } from '../ticket/accepts.ts'
import { principalSchema, type Principal } from '../ticket/principal.ts'
import { RIGHTS, type Right } from '../ticket/rights.ts'

const TERM_FIELDS = [
  'access',
  'grants',
  'longestTerm',
  'rights',
  'shaping',
  'perPrincipal',
  'perOrganisation'
] as const
const RULE_FIELDS = ['name', 'match', ...TERM_FIELDS] as const
const QUOTA_FIELDS = ['tickets', 'cpu', 'memory', 'disk', 'egress'] as const
type TermField = (typeof TERM_FIELDS)[number]

const DEFAULT_TERM_MS = 30 * 24 * 3_600_000
const nameSchema = v.pipe(v.string(), v.minLength(1), v.maxLength(64))
const ticketsSchema = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(1_000_000))

/**
 * Throws `CONFIG_INVALID`, whose message names line and field of the first mistake and whose `details.problems` holds
 * them all (at most 20) as `{line, field, message}`.
 */
export function parsePolicy(text: string, file: string): AdmissionPolicy {
  const reader = openYaml(text, {
    what: file,
    code: 'CONFIG_INVALID',
    bytesMax: LIMITS.policyFileBytesMax
  })
  const top = reader.root.map(['rules', 'default'])
  const rules = (top.get('rules')?.list(LIMITS.policyRulesMax) ?? []).map(readRule)
  checkNames(rules)
  const otherwise = top.need('default', 'whether others are served: access: allow or access: deny')
  const fields = otherwise?.map(TERM_FIELDS)
  fields?.need('access', 'allow or deny')
  const terms = fields === undefined ? undefined : readTerms(fields, undefined)
  reader.finish()
  return { rules: [...rules.map(({ rule }) => rule), withTerms({ name: 'default' }, terms)] }
}

interface ReadRule {
  readonly rule: AdmissionRule
  readonly value: YamlValue
}

function readRule(value: YamlValue): ReadRule {
  const fields = value.map(RULE_FIELDS)
  const name = fields.need('name', 'a name for refusals to say')?.text(nameSchema) ?? ''
  const match = readMatch(fields.need('match', 'principals, organisations or both'))
  return { rule: withTerms({ name, match }, readTerms(fields, match)), value }
}

function withTerms(rule: AdmissionRule, terms: Terms | undefined): AdmissionRule {
  return terms === undefined ? rule : { ...rule, terms }
}

function checkNames(rules: readonly ReadRule[]): void {
  const names = new Set(['default'])
  for (const { rule, value } of rules) {
    if (names.has(rule.name)) value.problem(`there is another rule ${JSON.stringify(rule.name)}`)
    names.add(rule.name)
  }
}

function readMatch(value: YamlValue | undefined): Accepts {
  const fields = value?.map(['principals', 'organisations'])
  const match = {
    principals: readPrincipals(fields?.get('principals')),
    organisations: readPrincipals(fields?.get('organisations'))
  }
  const isEmpty = fields?.get('principals') === undefined && fields?.get('organisations') === undefined
  if (value?.isMap() === true && isEmpty) value.problem('matches nobody; who is left is for default')
  return match
}

function readPrincipals(value: YamlValue | undefined): Principal[] {
  const principals = new Set<Principal>()
  for (const item of value?.list(LIMITS.policyPrincipalsMax) ?? []) {
    const principal = item.text(principalSchema)
    if (principal === undefined) continue
    if (principals.has(principal)) item.problem(`${principal} is listed twice`)
    principals.add(principal)
  }
  return [...principals]
}

/** `undefined` for whom nothing is granted. */
function readTerms(fields: YamlMap<TermField>, match: Accepts | undefined): Terms | undefined {
  const access = fields.get('access')?.oneOf(['allow', 'deny']) ?? 'allow'
  const grants = fields.get('grants')?.oneOf(['slices', 'wholesale', 'both']) ?? 'slices'
  const shaping = readShaping(fields.get('shaping'))
  const terms = {
    grants,
    durationMsMax: readTerm(fields.get('longestTerm')),
    rights: readRights(fields.get('rights')),
    ...(shaping === undefined ? {} : { shaping }),
    perPrincipal: { tickets: TICKETS_PER_HOLDER, ...readQuota(fields.get('perPrincipal')) },
    perOrganisation: readQuota(fields.get('perOrganisation'))
  }
  if (access === 'deny') {
    for (const field of TERM_FIELDS) {
      if (field !== 'access') fields.get(field)?.problem('means nothing where access is denied')
    }
    return undefined
  }
  const isByOrganisation = match !== undefined && match.organisations.length > 0
  if (!isByOrganisation) fields.get('perOrganisation')?.problem('nobody is matched by an organisation here')
  return terms
}

function readTerm(value: YamlValue | undefined): number {
  const term = value?.amount(durationUnit)
  if (value === undefined || term === undefined) return DEFAULT_TERM_MS
  if (term < 1000 || term > LIMITS.leaseMsMax) {
    value.problem(`expected 1s to ${durationUnit.format(LIMITS.leaseMsMax)}`)
  }
  return term
}

function readRights(value: YamlValue | undefined): Right[] {
  const rights = (value?.list(RIGHTS.length) ?? []).map((item) => item.oneOf(RIGHTS))
  return [...new Set(rights.filter((right) => right !== undefined))]
}

function readQuota(value: YamlValue | undefined): Quota {
  const fields = value?.map(QUOTA_FIELDS)
  const amounts = {
    tickets: fields?.get('tickets')?.integer(ticketsSchema),
    cpuMillis: fields?.get('cpu')?.amount(cpuUnit),
    memoryBytes: fields?.get('memory')?.amount(byteUnit),
    diskBytes: fields?.get('disk')?.amount(byteUnit),
    egressBps: fields?.get('egress')?.amount(rateUnit)
  }
  return Object.fromEntries(Object.entries(amounts).filter(([, amount]) => amount !== undefined))
}

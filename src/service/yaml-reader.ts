/**
 * Reads YAML that people wrote, node by node, and remembers every mistake with its line and field instead of stopping
 * at the first. Takes one document of maps, lists and scalars; anchors, aliases, tags and merge keys are refused, so
 * that a few bytes can never stand for many.
 */
import * as v from 'valibot'
import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  parseAllDocuments,
  visit,
  type Document,
  type Node
} from 'yaml'
import { SlicenetError, type ErrorCode } from '../base/errors.ts'
import { nearestName } from '../base/nearest-name.ts'
import type { Unit } from '../base/units.ts'
import type { Schema } from '../wire/codec.ts'

const PROBLEMS_MAX = 20
const FLOW_DEPTH_MAX = 64

export interface YamlProblem {
  readonly line: number
  /** Dotted; empty for the document itself. */
  readonly field: string
  readonly message: string
}

export interface YamlInit {
  /** Begins every message: the file's name. */
  readonly what: string
  readonly code: ErrorCode
  readonly bytesMax: number
}

export interface YamlReader {
  readonly root: YamlValue
  /** Throws what was gathered, if anything was. */
  finish(): void
}

/** Throws `init.code` at once for what is no YAML of the kind taken; later mistakes wait for `finish`. */
export function openYaml(text: string, init: YamlInit): YamlReader {
  const bytes = Buffer.byteLength(text)
  const problems = new Problems(init)
  if (bytes > init.bytesMax) {
    problems.add(0, '', `${bytes} bytes; at most ${init.bytesMax} are allowed`)
    problems.finish()
  }
  checkDepth(text, problems)
  const lines = new LineCounter()
  const document = parseOne(text, lines, problems)
  const lineOf = (node: { range?: readonly number[] | null } | null): number =>
    lines.linePos(node?.range?.[0] ?? 0).line
  // A tag that the core schema does not know is a warning.
  for (const { pos, message } of [...document.errors, ...document.warnings]) {
    problems.add(lines.linePos(pos[0]).line, '', (message.split('\n')[0] ?? '').replace(/ at line .*$/, ''))
  }
  visit(document, {
    Node(_, node) {
      if (isAlias(node)) problems.add(lineOf(node), '', `aliases such as *${node.source} are not allowed`)
      else if (node.anchor !== undefined) {
        problems.add(lineOf(node), '', `anchors such as &${node.anchor} are not allowed`)
      }
    }
  })
  problems.finish()
  return {
    root: new YamlValue(document.contents, { problems, lineOf, field: '', fallbackLine: 1 }),
    finish: () => problems.finish()
  }
}

/** The parser recurses on flow collections, whose nesting costs a writer one byte a level. */
function checkDepth(text: string, problems: Problems): void {
  let depth = 0
  let line = 1
  for (const character of text) {
    if (character === '\n') line++
    else if (character === '[' || character === '{') depth++
    else if (character === ']' || character === '}') depth = Math.max(0, depth - 1)
    if (depth > FLOW_DEPTH_MAX) {
      problems.add(line, '', 'nested too deeply')
      problems.finish()
    }
  }
}

function parseOne(text: string, lineCounter: LineCounter, problems: Problems): Document {
  try {
    const documents = parseAllDocuments(text, {
      lineCounter,
      prettyErrors: false,
      schema: 'core',
      version: '1.2',
      merge: false,
      stringKeys: true,
      uniqueKeys: true
    })
    const [first, second] = Array.isArray(documents) ? documents : []
    if (second !== undefined) {
      problems.add(lineCounter.linePos(second.range[0]).line, '', 'expected one YAML document, found more')
    }
    if (first !== undefined) {
      problems.finish()
      return first
    }
    problems.add(1, '', 'the file is empty')
  } catch (error) {
    problems.finish()
    // Such as a RangeError when block collections nest beyond the stack.
    problems.add(1, '', error instanceof Error ? error.message : 'not YAML')
  }
  problems.finish()
  throw new TypeError('unreachable: finish throws what was added')
}

class Problems {
  readonly #init: YamlInit
  readonly #found: YamlProblem[] = []

  constructor(init: YamlInit) {
    this.#init = init
  }

  add(line: number, field: string, message: string): void {
    if (this.#found.length < PROBLEMS_MAX) this.#found.push({ line, field, message })
  }

  finish(): void {
    const found = this.#found.toSorted((a, b) => a.line - b.line)
    const [first] = found
    if (first === undefined) return
    const where = first.line === 0 ? this.#init.what : `${this.#init.what} line ${first.line}`
    const field = first.field === '' ? '' : `${first.field}: `
    const more = found.length === 1 ? '' : ` (and ${found.length - 1} more)`
    throw new SlicenetError(this.#init.code, `${where}: ${field}${first.message}${more}`, {
      details: { problems: found }
    })
  }
}

interface Place {
  readonly problems: Problems
  readonly lineOf: (node: Node | null) => number
  readonly field: string
  /** Where a value that is not there would have been. */
  readonly fallbackLine: number
}

/** One value of the document. What cannot be read as asked is a problem, and comes back `undefined`. */
export class YamlValue {
  readonly #node: unknown
  readonly #place: Place

  constructor(node: unknown, place: Place) {
    this.#node = node
    this.#place = place
  }

  get line(): number {
    const node = this.#node as Node | null
    return node === null ? this.#place.fallbackLine : this.#place.lineOf(node)
  }

  problem(message: string): void {
    this.#place.problems.add(this.line, this.#place.field, message)
  }

  isMap(): boolean {
    return isMap(this.#node)
  }

  /** Of a list; `undefined` where it is none. */
  get length(): number | undefined {
    return isSeq(this.#node) ? this.#node.items.length : undefined
  }

  /** A map that has no other fields than these. */
  map<Field extends string>(fields: readonly Field[]): YamlMap<Field> {
    const values = new Map<string, YamlValue>()
    for (const { key, keyValue, value } of this.entries()) {
      if ((fields as readonly string[]).includes(key)) {
        values.set(key, value)
      } else {
        const meant = nearestName(key, fields)
        keyValue.problem(
          `unknown field${meant === undefined ? `; known are ${fields.join(', ')}` : `; did you mean ${meant}?`}`
        )
      }
    }
    return {
      get: (field) => values.get(field),
      need: (field, what) => {
        const value = values.get(field)
        if (value === undefined && isMap(this.#node)) {
          const { problems, field: parent } = this.#place
          problems.add(this.line, parent === '' ? field : `${parent}.${field}`, `missing: ${what}`)
        }
        return value
      }
    }
  }

  /** The entries of a map with keys of any name. */
  entries(): { readonly key: string; readonly keyValue: YamlValue; readonly value: YamlValue }[] {
    if (!isMap(this.#node)) {
      this.problem(`expected a map of fields${this.#got()}`)
      return []
    }
    return this.#node.items.map(({ key, value }) => {
      const name = isScalar(key) ? String(key.value) : ''
      const { field } = this.#place
      const place = {
        ...this.#place,
        field: field === '' ? name : `${field}.${name}`,
        fallbackLine: this.#place.lineOf(key as Node)
      }
      return { key: name, keyValue: new YamlValue(key, place), value: new YamlValue(value, place) }
    })
  }

  list(lengthMax: number): YamlValue[] {
    if (!isSeq(this.#node)) {
      this.problem(`expected a list${this.#got()}`)
      return []
    }
    const { items } = this.#node
    if (items.length > lengthMax) {
      this.problem(`${items.length} entries; at most ${lengthMax} are allowed`)
      return []
    }
    return items.map(
      (item, index) => new YamlValue(item, { ...this.#place, field: `${this.#place.field}[${index}]` })
    )
  }

  text(schema: Schema<string>): string | undefined {
    if (!isScalar(this.#node) || typeof this.#node.value !== 'string') {
      this.problem(`expected text${this.#got()}`)
      return undefined
    }
    return this.#checked(schema, this.#node.value)
  }

  /** Text or a number, as it is written: arguments and the like are text to whoever reads them. */
  anyScalarText(schema: Schema<string>): string | undefined {
    const text = this.#source()
    if (text === undefined) {
      this.problem(`expected text${this.#got()}`)
      return undefined
    }
    return this.#checked(schema, text)
  }

  integer(schema: Schema<number>): number | undefined {
    if (!isScalar(this.#node) || typeof this.#node.value !== 'number') {
      this.problem(`expected a whole number${this.#got()}`)
      return undefined
    }
    return this.#checked(schema, this.#node.value)
  }

  boolean(): boolean | undefined {
    if (isScalar(this.#node) && typeof this.#node.value === 'boolean') return this.#node.value
    this.problem(`expected true or false${this.#got()}`)
    return undefined
  }

  amount(unit: Unit): number | undefined {
    const text = this.#source()
    const amount = text === undefined ? undefined : unit.parse(text)
    if (amount === undefined) this.problem(`expected ${unit.expected}${this.#got()}`)
    return amount
  }

  oneOf<T extends string>(options: readonly T[]): T | undefined {
    const text = this.text(v.string())
    if (text === undefined || (options as readonly string[]).includes(text)) return text as T | undefined
    const meant = nearestName(text, options)
    const hint = meant === undefined ? `known are ${options.join(', ')}` : `did you mean ${meant}?`
    this.problem(`unknown: ${text}; ${hint}`)
    return undefined
  }

  #checked<T>(schema: Schema<T>, value: unknown): T | undefined {
    const result = v.safeParse(schema, value)
    if (result.success) return result.output
    for (const issue of result.issues) this.problem(issue.message)
    return undefined
  }

  #source(): string | undefined {
    if (!isScalar(this.#node)) return undefined
    const { value, source } = this.#node
    if (typeof value === 'string') return value
    return typeof value === 'number' || typeof value === 'boolean' ? (source ?? String(value)) : undefined
  }

  #got(): string {
    if (isMap(this.#node)) return ', got a map'
    if (isSeq(this.#node)) return ', got a list'
    const source = this.#source()
    return source === undefined ? ', got nothing' : `, got ${JSON.stringify(source.slice(0, 60))}`
  }
}

export interface YamlMap<Field extends string> {
  get(field: Field): YamlValue | undefined
  /** Its absence is a problem; `what` says what it is for. */
  need(field: Field, what: string): YamlValue | undefined
}

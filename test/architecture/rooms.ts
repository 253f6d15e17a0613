/** The rules of the tree (design §7, style), over a list of files so that each rule can be shown to catch what it is for. */
import { dirname, join, normalize } from 'node:path'

export interface SourceFile {
  /** Relative to the repository, such as `src/base/clock.ts`. */
  readonly path: string
  readonly text: string
}

const AGENT = ['ticket', 'store', 'protocol', 'peer', 'wire']
const DAEMON = [
  'wire',
  'ticket',
  'query',
  'store',
  'protocol',
  'peer',
  'enforce',
  'agent',
  'node',
  'broker',
  'service',
  'web'
]

/**
 * Which rooms a room may import beside itself and `base`. Beyond design §7: the roles put codecs of `wire` on what they
 * keep in the store, the SDK stands on the daemon's control client, so the daemon not on it, and says what the messages
 * of `protocol` take, and queries, which brokers and agents evaluate, have a room of their own.
 */
export const ROOMS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  wire: [],
  ticket: ['wire'],
  query: ['ticket'],
  store: ['wire', 'ticket'],
  protocol: ['wire', 'ticket'],
  peer: ['wire', 'ticket', 'protocol'],
  enforce: ['ticket'],
  agent: [...AGENT, 'query'],
  node: [...AGENT, 'enforce'],
  broker: ['ticket', 'query', 'protocol', 'peer'],
  service: [...AGENT, 'query', 'broker'],
  sdk: ['ticket', 'protocol', 'peer', 'broker', 'service', 'daemon'],
  web: ['ticket', 'agent', 'node'],
  daemon: DAEMON,
  cli: ['daemon', 'sdk']
}

/** Who may import what of the system's, and why. Types are free: they do nothing. */
const CONFINED: Readonly<Record<string, readonly string[]>> = {
  // The entry point must not load slicenet before it knows that this Node.js can.
  'node:child_process': ['src/base/host-program.ts', 'src/cli/main.ts'],
  koffi: ['src/base/posix-spawn.ts', 'src/enforce/syscall.ts']
}
const ENVIRONMENT_FILE = 'src/daemon/environment.ts'
const LINES_MAX = 450
const VAGUE = /^(?:utils?|helpers?|types?|common|index)$/

interface Import {
  readonly target: string
  readonly isType: boolean
}

/** Every rule that a file breaks, as `path: what`; in the order of the files. */
export function faults(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) => {
    const found = [...importFaults(file), ...environmentFaults(file), ...shapeFaults(file)]
    return found.map((what) => `${file.path}: ${what}`)
  })
}

function importFaults(file: SourceFile): string[] {
  const room = roomOf(file.path)
  return importsOf(file.text).flatMap(({ target, isType }) => {
    if (!target.startsWith('.')) {
      const allowed = CONFINED[target.startsWith('child_process') ? `node:${target}` : target]
      return isType || allowed === undefined || allowed.includes(file.path) ? [] : [`imports ${target}`]
    }
    const path = normalize(join(dirname(file.path), target))
    const other = roomOf(path)
    // The public list stands outside of the rooms; nobody stands on it.
    if (room === undefined && file.path === 'src/index.ts') return []
    if (other === undefined) return [`imports ${path}, which is in no room`]
    if (room === other || other === 'base' || ROOMS[room ?? '']?.includes(other) === true) return []
    return [`${room ?? 'no room'} imports ${other} (${path})`]
  })
}

function environmentFaults({ path, text }: SourceFile): string[] {
  if (path === ENVIRONMENT_FILE) return []
  return /\bprocess\s*(?:\.\s*env\b|\[\s*['"]env)|\{[^}]*\benv\b[^}]*\}\s*=\s*process\b/.test(
    withoutComments(text)
  )
    ? ['reads process.env']
    : []
}

function shapeFaults({ path, text }: SourceFile): string[] {
  const name = path.slice(path.lastIndexOf('/') + 1)
  const stem = name.replace(/\.ts$/, '')
  const room = roomOf(path)
  const lines = text.split('\n').length - 1
  return [
    ...(/^[a-z0-9]+(?:-[a-z0-9]+)*\.ts$/.test(name) ? [] : ['is not named in kebab-case']),
    ...(VAGUE.test(stem) && path !== 'src/index.ts' ? [`is named ${stem}, which says nothing`] : []),
    ...(/^(?:#![^\n]*\n)?\/\*\*/.test(text) ? [] : ['does not open with a doc comment']),
    ...(lines > LINES_MAX ? [`has ${lines} lines, more than ${LINES_MAX}`] : []),
    ...(room !== undefined && !Object.hasOwn(ROOMS, room) ? [`is in ${room}, which is no room`] : []),
    ...(room === undefined && path !== 'src/index.ts' ? ['is in no room'] : [])
  ]
}

/** `src/<room>/…`. */
function roomOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1]
}

function importsOf(text: string): Import[] {
  const bare = withoutComments(text)
  const declared = bare.matchAll(/\b(?:import|export)\b(\s+type\b)?[^'";]*?\bfrom\s*['"]([^'"]+)['"]/g)
  const direct = bare.matchAll(/\bimport\s*\(?\s*['"]([^'"]+)['"]/g)
  const required = bare.matchAll(/\brequire\s*\(\s*['"]([^'"]+)['"]/g)
  return [
    ...[...declared].map((match) => ({ target: match[2] ?? '', isType: match[1] !== undefined })),
    ...[...direct, ...required].map((match) => ({ target: match[1] ?? '', isType: false }))
  ]
}

/** Good enough for import lines: a `//` within quotes keeps what is before it. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|[^:'"`])\/\/[^\n]*/g, '$1')
}

/**
 * Reads the headers of a tar file (ustar, pax and GNU's): what each entry is and where its bytes lie. What is not
 * understood makes the archive invalid, since an entry that is passed over would be one that nobody checked.
 */
import type { FileHandle } from 'node:fs/promises'
import { SlicenetError } from '../base/errors.ts'
import { invalidEntry } from './image-archive.ts'

export const TAR_BLOCK_BYTES = 512
const WINDOW_BYTES = 64 * 1024
/** Of a long name, or of the fields of pax. */
const EXTENSION_BYTES_MAX = 1024 * 1024

export type TarEntryType = 'file' | 'directory' | 'symlink' | 'hardlink' | 'fifo'

/** Names are byte strings: one character a byte, so that names in any encoding stay as they are. */
export interface TarEntry {
  readonly name: string
  readonly type: TarEntryType
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Whole seconds since 1970. */
  readonly mtime: number
  readonly size: number
  /** Of links, else empty. */
  readonly target: string
  /** Where its bytes begin in the file. */
  readonly offset: number
}

const TYPES: Readonly<Record<string, TarEntryType>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '5': 'directory',
  '6': 'fifo'
}

/** The entries in their order. Throws `IMAGE_INVALID`. */
export async function* readTar(file: FileHandle): AsyncGenerator<TarEntry> {
  const bytes = new Window(file, (await file.stat()).size)
  let fields: Fields = {}
  for (let at = 0; at < bytes.size;) {
    const header = await bytes.read(at, TAR_BLOCK_BYTES)
    if (header.every((byte) => byte === 0)) return
    checkSum(header)
    const offset = at + TAR_BLOCK_BYTES
    const flag = String.fromCharCode(header[156]!)
    const size = fields.size ?? number(header, 124, 12)
    // Links, directories and pipes have no bytes, whatever their size says.
    const held = 'xgLK'.includes(flag) || TYPES[flag] === 'file' ? size : 0
    at = offset + Math.ceil(held / TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES
    if (size < 0 || !Number.isSafeInteger(at) || offset + held > bytes.size)
      throw damaged('it ends within a file')
    if ('xgLK'.includes(flag)) {
      if (size > EXTENSION_BYTES_MAX) throw damaged('a name or its fields are too long')
      fields = { ...fields, ...extension(flag, await bytes.read(offset, size)) }
      continue
    }
    yield { ...entry(header, flag, fields), size: held, offset }
    fields = {}
  }
}

interface Fields {
  readonly name?: string
  readonly target?: string
  readonly size?: number
  readonly uid?: number
  readonly gid?: number
  readonly mtime?: number
}

function entry(header: Buffer, flag: string, fields: Fields): Omit<TarEntry, 'size' | 'offset'> {
  // Only the standard's own headers have a prefix; GNU's keep other things there.
  const prefix = header.toString('latin1', 257, 263) === 'ustar\0' ? text(header, 345, 155) : ''
  const short = text(header, 0, 100)
  const name = fields.name ?? (prefix === '' ? short : `${prefix}/${short}`)
  const type = flag === '\0' && name.endsWith('/') ? 'directory' : TYPES[flag]
  if (flag === '3' || flag === '4') throw invalidEntry('a device', name)
  if (type === undefined) throw invalidEntry('an entry of an unknown kind', name)
  return {
    name,
    type,
    mode: number(header, 100, 8) & 0o7777,
    uid: fields.uid ?? number(header, 108, 8),
    gid: fields.gid ?? number(header, 116, 8),
    mtime: Math.floor(fields.mtime ?? number(header, 136, 12)),
    target: fields.target ?? text(header, 157, 100)
  }
}

function extension(flag: string, bytes: Buffer): Fields {
  const value = bytes.toString('latin1').replace(/\0+$/, '')
  if (flag === 'L') return { name: value }
  if (flag === 'K') return { target: value }
  // What is said of all entries is a comment, as a rule.
  return flag === 'g' ? {} : paxFields(bytes)
}

/** Records `<length> <key>=<value>\n`. */
function paxFields(bytes: Buffer): Fields {
  const found = new Map<string, string>()
  for (let at = 0; at < bytes.length;) {
    const [head, digits] = /^(\d{1,7}) /.exec(bytes.toString('latin1', at, at + 8)) ?? []
    const length = Number(digits)
    const record = bytes.toString('latin1', at + (head?.length ?? 0), at + length)
    const equals = record.indexOf('=')
    if (head === undefined || at + length > bytes.length || equals < 1 || !record.endsWith('\n')) {
      throw damaged('the fields of an entry cannot be read')
    }
    found.set(record.slice(0, equals), record.slice(equals + 1, -1))
    at += length
  }
  if ([...found.keys()].some((key) => key.startsWith('GNU.sparse.'))) {
    throw damaged('it has sparse files, which layers do not')
  }
  const amount = (key: string): number | undefined => {
    const value = found.get(key)
    if (value === undefined) return undefined
    if (!/^-?\d{1,15}(\.\d*)?$/.test(value)) throw damaged(`the field ${key} is no number`)
    return Number(value)
  }
  const fields = {
    name: found.get('path'),
    target: found.get('linkpath'),
    size: amount('size'),
    uid: amount('uid'),
    gid: amount('gid'),
    mtime: amount('mtime')
  }
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

function text(header: Buffer, at: number, length: number): string {
  const field = header.toString('latin1', at, at + length)
  const end = field.indexOf('\0')
  return end < 0 ? field : field.slice(0, end)
}

/** Octal digits, or where the first bit is set a number in two's complement. */
function number(header: Buffer, at: number, length: number): number {
  if ((header[at]! & 0x80) !== 0) {
    const sign = header[at] === 0xff ? -1n : 0n
    const value = header.subarray(at + 1, at + length).reduce((sum, byte) => (sum << 8n) | BigInt(byte), sign)
    return Number(value)
  }
  const digits = header
    .toString('latin1', at, at + length)
    .replace(/[\0 ]+$/, '')
    .trimStart()
  if (!/^[0-7]*$/.test(digits)) throw damaged('a number cannot be read')
  return digits === '' ? 0 : Number.parseInt(digits, 8)
}

function checkSum(header: Buffer): void {
  let sum = 8 * 0x20
  for (const [index, byte] of header.entries()) if (index < 148 || index >= 156) sum += byte
  if (sum !== number(header, 148, 8)) throw damaged('a header was altered')
}

function damaged(why: string): SlicenetError {
  return new SlicenetError('IMAGE_INVALID', `a layer is no archive that can be read: ${why}`)
}

/** A part of the file in memory, since headers of small files lie close together. */
class Window {
  readonly size: number
  readonly #file: FileHandle
  #bytes = Buffer.alloc(0)
  #start = 0

  constructor(file: FileHandle, size: number) {
    this.#file = file
    this.size = size
  }

  async read(at: number, length: number): Promise<Buffer> {
    if (at + length > this.size) throw damaged('it ends within a header')
    const from = at - this.#start
    if (from >= 0 && from + length <= this.#bytes.length) return this.#bytes.subarray(from, from + length)
    const wanted = Math.min(Math.max(length, WINDOW_BYTES), this.size - at)
    const { buffer, bytesRead } = await this.#file.read(Buffer.alloc(wanted), 0, wanted, at)
    if (bytesRead < length) throw damaged('it became shorter while it was read')
    this.#bytes = buffer.subarray(0, bytesRead)
    this.#start = at
    return this.#bytes.subarray(0, length)
  }
}

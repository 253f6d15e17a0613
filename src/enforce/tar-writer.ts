/** Writes the tree that layers come to as one tar archive of a root file system, which is then checked as any other is. */
import type { FileHandle } from 'node:fs/promises'
import { SlicenetError } from '../base/errors.ts'
import type { Inode, LayerTree } from './layer-tree.ts'
import { TAR_BLOCK_BYTES } from './tar-reader.ts'

const CHUNK_BYTES = 1024 * 1024
const NAME_BYTES_MAX = 100
const MTIME_MAX = 0o77777777777

const FLAGS = { file: '0', directory: '5', symlink: '2', fifo: '6' } as const

/** The archive, piece by piece. `layers`: the open layers that the inodes name. */
export async function* tarOfTree(tree: LayerTree, layers: readonly FileHandle[]): AsyncGenerator<Buffer> {
  const firstPaths = new Map<Inode, string>()
  for (const { path, inode } of tree.walk()) {
    const first = firstPaths.get(inode)
    if (first !== undefined) {
      yield header(path, '1', { ...inode, size: 0, target: first })
      continue
    }
    if (inode.type !== 'directory') firstPaths.set(inode, path)
    yield header(path, FLAGS[inode.type], inode)
    if (inode.type === 'file') yield* contentOf(inode, layers)
  }
  yield Buffer.alloc(2 * TAR_BLOCK_BYTES)
}

async function* contentOf(
  { layer, offset, size }: Inode,
  layers: readonly FileHandle[]
): AsyncGenerator<Buffer> {
  const file = layers[layer]
  if (file === undefined) throw new TypeError('a layer is not open')
  for (let done = 0; done < size;) {
    const wanted = Math.min(CHUNK_BYTES, size - done)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(wanted), 0, wanted, offset + done)
    if (bytesRead === 0) throw new SlicenetError('IMAGE_INVALID', 'a layer became shorter while it was read')
    done += bytesRead
    yield buffer.subarray(0, bytesRead)
  }
  if (size % TAR_BLOCK_BYTES > 0) yield Buffer.alloc(TAR_BLOCK_BYTES - (size % TAR_BLOCK_BYTES))
}

function header(name: string, flag: string, inode: Omit<Inode, 'type' | 'layer' | 'offset'>): Buffer {
  return Buffer.concat([
    ...(name.length > NAME_BYTES_MAX ? long('L', name) : []),
    ...(inode.target.length > NAME_BYTES_MAX ? long('K', inode.target) : []),
    block(name, flag, inode)
  ])
}

/** GNU's way with a name that has no room in its header. */
function long(flag: 'L' | 'K', name: string): Buffer[] {
  const size = name.length + 1
  const bytes = Buffer.alloc(Math.ceil(size / TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES)
  bytes.write(name, 'latin1')
  return [block('././@LongLink', flag, { mode: 0, uid: 0, gid: 0, mtime: 0, size, target: '' }), bytes]
}

function block(
  name: string,
  flag: string,
  { mode, uid, gid, mtime, size, target }: Omit<Inode, 'type' | 'layer' | 'offset'>
): Buffer {
  const bytes = Buffer.alloc(TAR_BLOCK_BYTES)
  const put = (value: string, at: number, length: number): void =>
    void bytes.write(value.slice(0, length), at, 'latin1')
  put(name, 0, NAME_BYTES_MAX)
  put(octal(mode, 7), 100, 8)
  put(octal(uid, 7), 108, 8)
  put(octal(gid, 7), 116, 8)
  put(octal(size, 11), 124, 12)
  put(octal(Math.min(Math.max(mtime, 0), MTIME_MAX), 11), 136, 12)
  put(' '.repeat(8), 148, 8)
  put(flag, 156, 1)
  put(target, 157, NAME_BYTES_MAX)
  put('ustar  \0', 257, 8)
  const sum = bytes.reduce((total, byte) => total + byte, 0)
  put(`${octal(sum, 6)}\0 `, 148, 8)
  return bytes
}

function octal(value: number, digits: number): string {
  const text = value.toString(8).padStart(digits, '0')
  // Owners above the range of a vserver, and sizes beyond every limit.
  if (value < 0 || text.length > digits) {
    throw new SlicenetError('IMAGE_INVALID', `the image holds an owner or a size of ${value}`)
  }
  return text
}

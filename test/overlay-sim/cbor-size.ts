/** How many bytes a value has in DAG-CBOR, without making them. */
export function cborSize(value: unknown): number {
  if (typeof value === 'number') return value < 0 ? head(-1 - value) : head(value)
  if (typeof value === 'string') return text(value)
  if (value === null || typeof value === 'boolean') return 1
  if (value instanceof Uint8Array) return head(value.length) + value.length
  if (Array.isArray(value)) {
    let size = head(value.length)
    for (const item of value) size += cborSize(item)
    return size
  }
  let size = 0
  let entries = 0
  for (const [key, item] of Object.entries(value as object)) {
    if (item === undefined) continue
    entries += 1
    size += text(key) + cborSize(item)
  }
  return size + head(entries)
}

function text(value: string): number {
  const length = Buffer.byteLength(value)
  return head(length) + length
}

function head(amount: number): number {
  if (amount < 24) return 1
  if (amount < 0x100) return 2
  if (amount < 0x1_0000) return 3
  return amount < 0x1_0000_0000 ? 5 : 9
}

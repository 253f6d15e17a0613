/** A program's output put together for one JSON document: as text where it is text, bounded. */

export type OutputStream = 'stdout' | 'stderr'

export class GatheredOutput {
  readonly #bytesMax: number
  readonly #chunks: Record<OutputStream, Uint8Array[]> = { stdout: [], stderr: [] }
  #size = 0
  #isTruncated = false

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  add(stream: OutputStream, bytes: Uint8Array): void {
    const taken = bytes.subarray(0, this.#bytesMax - this.#size)
    if (taken.length < bytes.length) this.#isTruncated = true
    if (taken.length > 0) this.#chunks[stream].push(taken)
    this.#size += taken.length
  }

  /** `truncated`: there was more than may be gathered. */
  document(): Record<string, unknown> {
    return {
      ...named('stdout', Buffer.concat(this.#chunks.stdout)),
      ...named('stderr', Buffer.concat(this.#chunks.stderr)),
      truncated: this.#isTruncated
    }
  }
}

/** Output as `name`, or as `nameBase64` when it is no UTF-8. */
export function named(name: string, bytes: Uint8Array): Record<string, string> {
  try {
    return { [name]: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) }
  } catch {
    return { [`${name}Base64`]: Buffer.from(bytes).toString('base64') }
  }
}

/** IP addresses as text and as bytes. */
import { isIPv6 } from 'node:net'

/** The one text of an address that may be written in several ways (RFC 5952); it must be an address without a zone. */
export function canonicalAddress(address: string): string {
  return isIPv6(address) ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address
}

/** 4 or 16, as they travel. */
export function addressBytes(address: string): number[] {
  if (!isIPv6(address)) return address.split('.').map(Number)
  const [head = '', tail = ''] = canonicalAddress(address).split('::')
  const bytesOf = (part: string): number[] =>
    part === ''
      ? []
      : part.split(':').flatMap((word) => [Number.parseInt(word, 16) >> 8, Number.parseInt(word, 16) & 0xff])
  const [first, last] = [bytesOf(head), bytesOf(tail)]
  return [...first, ...Array.from({ length: 16 - first.length - last.length }, () => 0), ...last]
}

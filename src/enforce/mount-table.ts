/** What is mounted where on this machine, read from the kernel's table. */
import { readFile, realpath } from 'node:fs/promises'

/** Mount points in the order they were mounted. */
export async function mountPoints(): Promise<string[]> {
  const table = await readFile('/proc/self/mountinfo', 'utf8')
  return table
    .split('\n')
    .map((line) => line.split(' ')[4])
    .filter((point) => point !== undefined)
    .map(unescapePath)
}

export async function isMountPoint(path: string): Promise<boolean> {
  const [points, real] = await Promise.all([mountPoints(), realpath(path).catch(() => path)])
  return points.includes(real)
}

/** The kernel writes blanks and backslashes as octal. */
function unescapePath(path: string): string {
  return path.replaceAll(/\\(\d{3})/g, (_, octal: string) => String.fromCodePoint(Number.parseInt(octal, 8)))
}

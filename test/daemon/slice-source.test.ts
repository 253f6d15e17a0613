import test from 'ava'
import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadSliceDescription } from '../../src/daemon/slice-source.ts'

async function withDescription(
  files: string,
  work: (path: string, directory: string) => Promise<void>
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-slice-'))
  const path = join(directory, 'mesh.yaml')
  await writeFile(path, `name: mesh\nimage: debian\nfiles:\n${files}`)
  try {
    await work(path, directory)
  } finally {
    await rm(directory, { recursive: true })
  }
}

test('files are read relative to the description, with their own mode unless it gives one', async (t) => {
  const files = '  /srv/a: ./src/a.sh\n  /srv/b: { source: src/a.sh, mode: "0600" }\n'
  await withDescription(files, async (path, directory) => {
    await mkdir(join(directory, 'src'))
    await writeFile(join(directory, 'src/a.sh'), 'echo', { mode: 0o775 })
    const { files } = await loadSliceDescription(path)
    t.deepEqual(
      files.map((file) => ({ ...file, content: Buffer.from(file.content).toString() })),
      [
        { path: '/srv/a', content: 'echo', mode: 0o755 },
        { path: '/srv/b', content: 'echo', mode: 0o600 }
      ]
    )
  })
})

test('a file that is not there is named with its line', async (t) => {
  await withDescription('  /srv/a: ./none\n', async (path) => {
    const error = await t.throwsAsync(loadSliceDescription(path), { code: 'SLICE_FILE_INVALID' })
    t.regex(error?.message ?? '', /mesh\.yaml line 4: files\.\/srv\/a: \.\/none: there is no such file/)
  })
})

test('a directory, a named pipe and a file too large are refused without waiting', async (t) => {
  await withDescription('  /srv/a: ./source\n', async (path, directory) => {
    const source = join(directory, 'source')
    await mkdir(source)
    await t.throwsAsync(loadSliceDescription(path), { code: 'SLICE_FILE_INVALID' })
    await rm(source, { recursive: true })
    execFileSync('mkfifo', [source])
    await t.throwsAsync(loadSliceDescription(path), {
      code: 'SLICE_FILE_INVALID',
      message: /not a regular file/
    })
    await rm(source)
    await writeFile(source, Buffer.alloc(128 * 1024 + 1))
    await t.throwsAsync(loadSliceDescription(path), { code: 'SLICE_FILE_INVALID', message: /larger than/ })
    await writeFile(source, Buffer.alloc(128 * 1024))
    t.is((await loadSliceDescription(path)).files[0]?.content.length, 128 * 1024)
  })
})

test('files that are too large together are refused', async (t) => {
  const lines = Array.from({ length: 33 }, (_item, index) => `  /srv/${index}: ./source\n`)
  await withDescription(lines.join(''), async (path, directory) => {
    await writeFile(join(directory, 'source'), Buffer.alloc(128 * 1024))
    await t.throwsAsync(loadSliceDescription(path), { code: 'TOO_LARGE' })
    await writeFile(join(directory, 'source'), Buffer.alloc(100 * 1024))
    t.is((await loadSliceDescription(path)).files.length, 33)
  })
})

test('a description that is not there or no text is refused', async (t) => {
  await withDescription('', async (path) => {
    await t.throwsAsync(loadSliceDescription(`${path}.none`), { code: 'NOT_FOUND' })
    await writeFile(path, Buffer.from([0xff, 0xfe]))
    await t.throwsAsync(loadSliceDescription(path), { code: 'SLICE_FILE_INVALID', message: /UTF-8/ })
  })
})

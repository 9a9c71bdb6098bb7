import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm, stat, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { byteOffset } from '../../../core/units.ts'
import { checkFor, loadCachedRead } from '../../../datapath/disk/cached-read.ts'
import { NodeDisk } from '../../../datapath/disk/node-disk.ts'
import { type DiskFile } from '../../../core/ports/disk.ts'

const run = promisify(execFile)
const PAGE = 4096
const PAGES = 64

describe('the kernels on which cached bytes are read at once', () => {
  for (const [kernel, check] of [
    ['4.4.0', 'impossible'],
    ['4.14.0', 'none needed'],
    ['4.19.0+1', 'none needed'],
    ['5.10.0-28-amd64', 'none needed'],
    ['5.11.0', 'impossible'],
    ['6.1.0-18-amd64', 'impossible'],
    ['6.5.0', 'cachestat'],
    ['6.18.5', 'cachestat'],
    ['10.0', 'cachestat'],
    ['unknown', 'impossible'],
  ] as const) {
    it(`${kernel}: ${check}`, () => assert.equal(checkFor(kernel), check))
  }
})

describe('a read of what the system has in memory', function () {
  this.timeout(30_000)

  let directory: string
  let path: string
  let file: DiskFile

  before(async function () {
    if ((await loadCachedRead()) === null) this.skip()
  })

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-cached-'))
    path = join(directory, 'file')
    file = await (await NodeDisk.open(directory)).open('file', true)
    await file.write(new Uint8Array(PAGES * PAGE).fill(7), byteOffset(0))
  })

  afterEach(async () => {
    await file.close()
    await rm(directory, { recursive: true })
  })

  const forget = async (): Promise<void> => {
    await file.sync()
    await run('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none'])
  }

  it('is done at once, wherever it begins, into a part of a buffer, and touches nothing beside it', () => {
    const buffer = Buffer.alloc(3 * PAGE, 0xee)
    assert.equal(file.readAtOnce!(buffer.subarray(PAGE, 2 * PAGE + 5), byteOffset(4095)), true)
    assert.ok(buffer.subarray(0, PAGE).every(byte => byte === 0xee))
    assert.ok(buffer.subarray(PAGE, 2 * PAGE + 5).every(byte => byte === 7))
    assert.ok(buffer.subarray(2 * PAGE + 5).every(byte => byte === 0xee))
  })

  it('is left to the disk when some of it is not in memory, and done once it has been read', async () => {
    await forget()
    const into = Buffer.alloc(PAGE)
    assert.equal(file.readAtOnce!(into, byteOffset(PAGE)), false)
    await file.read(into, byteOffset(PAGE))
    assert.ok(into.every(byte => byte === 7))
    assert.equal(file.readAtOnce!(Buffer.alloc(PAGE), byteOffset(PAGE)), true)
  })

  const isThere = (page: number): boolean => file.readAtOnce!(Buffer.alloc(PAGE), byteOffset(page * PAGE))

  it('does not begin to read what is not in memory', async () => {
    await forget()
    assert.equal(isThere(1), false)
    // As long as a read of the disk takes.
    await file.read(Buffer.alloc(PAGE), byteOffset(3 * PAGE))
    assert.equal(isThere(1), false)
  })

  it('is left to the disk when only a part is in memory, and does not begin to read the other', async () => {
    await forget()
    await file.read(Buffer.alloc(PAGE), byteOffset(PAGE))
    assert.equal(file.readAtOnce!(Buffer.alloc(2 * PAGE), byteOffset(PAGE)), false)
    await file.read(Buffer.alloc(PAGE), byteOffset(3 * PAGE))
    assert.deepEqual([1, 2].map(isThere), [true, false])
  })

  it('is of a file that the kernel does not read ahead of those who read it', async () => {
    await forget()
    for (const page of [0, 1]) await file.read(Buffer.alloc(PAGE), byteOffset(page * PAGE))
    await file.read(Buffer.alloc(PAGE), byteOffset((PAGES - 1) * PAGE))
    assert.deepEqual([0, 1, 2, 3, 4].map(isThere), [true, true, false, false, false])
  })

  it('is left to `read` beyond the end of the file, which fills with zeros there', () => {
    assert.equal(file.readAtOnce!(Buffer.alloc(2 * PAGE), byteOffset((PAGES - 1) * PAGE)), false)
  })

  it('is not done on a file that is closed', async () => {
    const disk = await NodeDisk.open(directory)
    const closed = await disk.open('file', false)
    await closed.close()
    // The system gives its number to the next file.
    const next = await disk.open('file', false)
    assert.equal(closed.readAtOnce!(Buffer.alloc(PAGE), byteOffset(0)), false)
    assert.equal(next.readAtOnce!(Buffer.alloc(PAGE), byteOffset(0)), true)
    await next.close()
  })

  it('leaves no time of the read with the file, which a file system would have to write down', async () => {
    const longAgo = new Date(1_000_000_000_000)
    await utimes(path, longAgo, new Date())
    assert.equal(file.readAtOnce!(Buffer.alloc(PAGE), byteOffset(0)), true)
    assert.equal((await stat(path)).atimeMs, longAgo.getTime())
  })

  it('is not there where foreign functions are not to be called', async () => {
    const script = `
      import { loadCachedRead } from ${JSON.stringify(join(import.meta.dirname, '../../../datapath/disk/cached-read.ts'))}
      console.log(await loadCachedRead())`
    const { stdout } = await run(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      env: { ...process.env, XOSAN_NO_FFI: '1' },
    })
    assert.equal(stdout.trim(), 'null')
  })
})

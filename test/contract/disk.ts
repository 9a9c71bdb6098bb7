import assert from 'node:assert/strict'
import { type Disk } from '../../core/ports/disk.ts'
import { byteLength, byteOffset } from '../../core/units.ts'

/** A disk under test, empty. `another` is the same disk as another process sees it. */
export interface DiskSubject {
  readonly disk: Disk
  readonly another: Disk
  dispose?(): Promise<void>
}

/**
 * What every implementation of the disk port owes its callers, as a mocha suite.
 * @param make gives an empty disk; called before each test
 */
export function diskContract(name: string, make: () => Promise<DiskSubject>): void {
  describe(`${name} is a disk`, () => {
    let subject: DiskSubject
    let disk: Disk

    beforeEach(async () => {
      subject = await make()
      disk = subject.disk
    })
    afterEach(() => subject.dispose?.())

    const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value)

    it('gives back what was written, and zeros beyond the end of the file', async () => {
      const file = await disk.open('a', true)
      await file.write(bytes(10_000, 7), byteOffset(5000))
      const into = bytes(20_000, 1)
      await file.read(into, byteOffset(0))
      assert.ok(into.subarray(0, 5000).every(byte => byte === 0))
      assert.ok(into.subarray(5000, 15_000).every(byte => byte === 7))
      assert.ok(into.subarray(15_000).every(byte => byte === 0))
      assert.equal((await file.stat()).size, 15_000)
      await file.close()
    })

    it('opens what is missing only to create it, and refuses to create exclusively what is there', async () => {
      await assert.rejects(disk.open('a', false), { code: 'ENOENT' })
      await (await disk.open('a', 'exclusive')).close()
      await assert.rejects(disk.open('a', 'exclusive'), { code: 'EEXIST' })
      await assert.rejects(disk.open('missing/a', true), { code: 'ENOENT' })
    })

    it('frees a punched range, which reads as zeros, and keeps the size of the file', async () => {
      const file = await disk.open('a', true)
      await file.write(bytes(1024 * 1024, 7), byteOffset(0))
      await file.sync()
      const before = (await file.stat()).allocated
      await file.punch(byteOffset(4096), byteLength(1024 * 1024 - 4096))
      await file.sync()
      const { size, allocated } = await file.stat()
      assert.equal(size, 1024 * 1024)
      assert.ok(allocated < before / 2, `${allocated} bytes are left of ${before}`)
      const into = bytes(8192, 1)
      await file.read(into, byteOffset(0))
      assert.ok(into.subarray(0, 4096).every(byte => byte === 7))
      assert.ok(into.subarray(4096).every(byte => byte === 0))
      await file.close()
    })

    it('punches beyond the end, nothing at all, and parts of blocks', async () => {
      const file = await disk.open('a', true)
      await file.write(bytes(10_000, 7), byteOffset(0))
      await file.punch(byteOffset(100), byteLength(0))
      await file.punch(byteOffset(9000), byteLength(100_000))
      await file.punch(byteOffset(10), byteLength(5))
      const into = bytes(10_000, 1)
      await file.read(into, byteOffset(0))
      into.forEach((byte, at) =>
        assert.equal(byte, at >= 9000 || (at >= 10 && at < 15) ? 0 : 7, `byte ${at}`)
      )
      assert.equal((await file.stat()).size, 10_000)
      await file.close()
    })

    it('takes the space that it reserves, and leaves data in the range alone', async () => {
      const file = await disk.open('a', true)
      await file.write(bytes(100, 7), byteOffset(300_000))
      await file.reserve(byteOffset(0), byteLength(2 * 1024 * 1024))
      await file.sync()
      const { size, allocated } = await file.stat()
      assert.equal(size, 2 * 1024 * 1024)
      assert.ok(allocated >= size, `${allocated} bytes are reserved`)
      const into = new Uint8Array(size)
      await file.read(into, byteOffset(0))
      into.forEach((byte, at) => {
        if (byte !== (at >= 300_000 && at < 300_100 ? 7 : 0)) assert.fail(`byte ${at} is ${byte}`)
      })
      await file.close()
    })

    it('grows and shrinks a file, and what grows is zeros', async () => {
      const file = await disk.open('a', true)
      await file.write(bytes(8192, 7), byteOffset(0))
      await file.resize(byteLength(1000))
      await file.resize(byteLength(8192))
      const into = bytes(8192, 1)
      await file.read(into, byteOffset(0))
      into.forEach((byte, at) => assert.equal(byte, at < 1000 ? 7 : 0))
      await file.close()
    })

    it('keeps offsets beyond 2^32 apart', async () => {
      const file = await disk.open('a', true)
      const far = byteOffset(2 ** 40)
      await file.resize(byteLength(2 ** 40 + 8192))
      await file.write(bytes(4096, 1), byteOffset(0))
      await file.write(bytes(4096, 2), far)
      await file.punch(byteOffset(2 ** 40 + 1024), byteLength(1024))
      const into = new Uint8Array(4096)
      await file.read(into, far)
      into.forEach((byte, at) => assert.equal(byte, at >= 1024 && at < 2048 ? 0 : 2))
      await file.read(into, byteOffset(0))
      assert.ok(into.every(byte => byte === 1))
      await file.close()
    })

    it('lists, renames and removes names, and does not mind what is missing', async () => {
      assert.deepEqual(await disk.list('d'), [])
      await disk.makeDirectory('d/e')
      await disk.makeDirectory('d/e')
      await (await disk.open('d/b', true)).close()
      await (await disk.open('d/a', true)).close()
      assert.deepEqual(await disk.list('d'), ['a', 'b', 'e'])
      await disk.rename('d/a', 'd/b')
      assert.deepEqual(await disk.list('d'), ['b', 'e'])
      await disk.syncDirectory('d')
      await disk.syncDirectory('')
      await assert.rejects(disk.remove('d'), { code: 'ENOTEMPTY' })
      await disk.remove('d/b')
      await disk.remove('d/b')
      await disk.remove('d/e')
      await disk.remove('d')
      assert.deepEqual(await disk.list(''), [])
    })

    it('gives the lock of a file to one open at a time, whoever asks', async () => {
      const first = await disk.open('a', true)
      const second = await disk.open('a', true)
      const third = await subject.another.open('a', true)
      assert.equal(first.tryLock(), true)
      assert.equal(second.tryLock(), false)
      assert.equal(third.tryLock(), false)
      // Unlike a POSIX lock, this one does not go when another descriptor of the file is closed.
      await second.close()
      assert.equal(third.tryLock(), false)
      await first.close()
      assert.equal(third.tryLock(), true)
      await third.close()
    })

    it('says how much space there is', async () => {
      const { total, free } = await disk.space()
      assert.ok(total > 0 && free > 0 && free <= total)
    })
  })
}

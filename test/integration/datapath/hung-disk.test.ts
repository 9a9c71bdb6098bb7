/**
 * A store on a file system in user space (bindfs) whose server is stopped: every call to it hangs, as on a disk that dies
 * slowly, and goes on where it was when the server does.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type ByteOffset } from '../../../core/units.ts'
import { type NbdClient } from '../../../datapath/replica-remote/nbd-client.ts'
import { storesFile } from '../../../rpc/datapath-api.ts'
import {
  assertSameBytes,
  DatapathPool,
  type PoolHost,
  type PoolVolume,
  rawFile,
} from '../../support/datapath-pool.ts'
import { hasProgram, runProgram } from '../../support/run-program.ts'

/** The program that serves it, of the Debian package of the same name. */
const FILE_SYSTEM = 'bindfs'
const MIB = 1024 * 1024
const SIZE = 16 * MIB
/** How long a request may take here, instead of the shipped 15 s. */
const REQUEST_MS = 4000
/** For taking the replica out, on a machine that is busy with other things; in milliseconds. */
const MARGIN_MS = 6000
const PATIENCE_MS = 30_000
/** By then a process that is told to end has done so, unless the kernel keeps it. */
const STOP_MS = 12_000

/** Why this cannot run here; null when it can. */
function obstacle(): string | null {
  if (!hasProgram(FILE_SYSTEM)) return `${FILE_SYSTEM} is not installed`
  if (!existsSync('/dev/fuse') || process.getuid?.() !== 0) return 'FUSE needs /dev/fuse and root'
  return null
}

/** A host's store seen through a file system that can be stopped. */
class StoppableStore {
  readonly #mount: string
  readonly #server: ChildProcess

  private constructor(mount: string, server: ChildProcess) {
    this.#mount = mount
    this.#server = server
  }

  /** Puts the file system over the store of a host whose process does not run, and tells the host of it. */
  static async over(host: PoolHost): Promise<StoppableStore> {
    const mount = join(host.directory, 'mounted')
    await mkdir(mount)
    const { dev } = await stat(mount)
    const words = ['-f', '--no-allow-other', host.storeDirectory, mount]
    const store = new StoppableStore(mount, spawn(FILE_SYSTEM, words, { stdio: 'ignore' }))
    const end = performance.now() + PATIENCE_MS
    while ((await stat(mount)).dev === dev) {
      assert.ok(performance.now() < end, 'the file system is mounted')
      await delay(20)
    }
    const file = join(host.directory, 'state', 'stores.json')
    const known = storesFile.parse(JSON.parse(await readFile(file, 'utf8')))
    const stores = known.stores.map(entry => ({ ...entry, directory: mount }))
    await writeFile(file, JSON.stringify({ ...known, stores }))
    return store
  }

  hang(): void {
    this.#server.kill('SIGSTOP')
  }

  goOn(): void {
    this.#server.kill('SIGCONT')
  }

  /** Whoever still waits for it gets an error. */
  async dispose(): Promise<void> {
    const ended = once(this.#server, 'exit')
    this.goOn()
    this.#server.kill('SIGKILL')
    await ended
    await runProgram('umount', ['-l', this.#mount])
  }
}

/** A request takes no longer on this host than here is said. */
async function shortenRequests(host: PoolHost): Promise<void> {
  const file = join(host.directory, 'config.json')
  const config = JSON.parse(await readFile(file, 'utf8')) as { timing: object }
  await writeFile(
    file,
    JSON.stringify({ ...config, timing: { ...config.timing, requestTimeMs: REQUEST_MS } })
  )
}

describe("a datapath process whose host's disk hangs", function () {
  this.timeout(180_000)
  let pool: DatapathPool
  let h1: PoolHost
  let h2: PoolHost
  let disk: StoppableStore | null = null
  let volume: PoolVolume
  let guest: NbdClient
  const expected = Buffer.alloc(SIZE)

  const write = async (offset: number, length: number, durable: boolean): Promise<void> => {
    const data = randomBytes(length)
    data.copy(expected, offset)
    await guest.write({ offset: offset as ByteOffset, data, durable })
  }
  const assertReads = async (client: NbdClient, offset: number, length: number): Promise<void> => {
    const bytes = await client.read(offset as ByteOffset, Buffer.alloc(length))
    assert.ok(
      expected.subarray(offset, offset + length).equals(bytes),
      `what was written is read at ${offset}`
    )
  }
  const inSync = (host: PoolHost, count: number) =>
    pool.until(
      volume,
      host,
      `${count} replicas in-sync`,
      ({ replicas, state }) =>
        state === 'serving' && replicas.filter(replica => replica.state === 'in-sync').length === count
    )

  before(async function () {
    const reason = obstacle()
    if (reason !== null) {
      console.log(`skipped: ${reason}`)
      this.skip()
    }
    pool = await DatapathPool.start(2)
    ;[h1, h2] = pool.hosts as [PoolHost, PoolHost]
    await h1.signal('SIGKILL')
    disk = await StoppableStore.over(h1)
    await shortenRequests(h1)
    await h1.start()
    volume = await pool.createVolume(SIZE, [h1, h2])
    guest = await h1.connect({ path: await pool.open(volume, h1) })
  })

  after(async () => {
    // First, or the process could not end: a thread of it may be inside.
    await disk?.dispose()
    await (pool as DatapathPool | undefined)?.dispose()
  })

  it('lets its guest go on with the other replica after the time of a request, and brings its own one back', async () => {
    for (let at = 0; at < SIZE; at += MIB) await write(at, MIB, false)
    await guest.flush()
    disk!.hang()
    const begun = performance.now()
    // At a depth that would take every thread of the process, if it were let.
    const asked = Array.from({ length: 12 }, (_, i) => write(i * MIB + 4096, 70_000, i % 3 === 0))
    const reads = Array.from({ length: 4 }, (_, i) => assertReads(guest, (12 + i) * MIB, 300_000))
    await h1.call('volume.status', volumeName(), 5000)
    await assert.rejects(h1.call('replica.stat', volumeName(), 10_000), /cannot be used yet/)
    await Promise.all([...asked, ...reads, guest.flush()])
    const stallMs = performance.now() - begun
    assert.ok(stallMs <= REQUEST_MS + MARGIN_MS, `the guest waited ${stallMs.toFixed(0)} ms`)
    console.log(
      `      guest stall with a hung local disk: ${stallMs.toFixed(0)} ms (a request may take ${REQUEST_MS} ms)`
    )
    await inSync(h1, 1)
    // From here nobody waits for it.
    for (let i = 0; i < 16; i++) await write(i * MIB + 200_000, 10_000, i % 4 === 0)
    await assertReads(guest, 0, SIZE)
    disk!.goOn()
    await inSync(h1, 2)
    await guest.flush()
    await assertReads(guest, 0, SIZE)
  })

  it('gives its volumes up when it is told to end, and its successor brings the replica back', async () => {
    disk!.hang()
    const held = write(0, MIB, true).catch(() => undefined)
    await delay(200)
    // It kills itself after a while. The kernel may keep what is left of it until the disk answers, with everything that
    // it has open: if the server had taken a call when it was stopped, that call cannot be broken off.
    const ended = h1.signal('SIGTERM')
    const there = await h2.connect({ path: await pool.open(volume, h2) })
    await there.write({ offset: 0 as ByteOffset, data: expected.subarray(0, MIB), durable: true })
    await assertReads(there, 0, SIZE)
    await Promise.race([ended, delay(STOP_MS)])
    disk!.goOn()
    await Promise.all([ended, held])
    await h1.start()
    await inSync(h2, 2)
    await there.flush()
    await assertReads(there, 0, SIZE)
    await there.close()
    await pool.close(volume, h2)
    await assertSameBytes(rawFile(volume, h1), rawFile(volume, h2))
  })

  const volumeName = () => ({ sr: volume.sr, volume: volume.volume })
})

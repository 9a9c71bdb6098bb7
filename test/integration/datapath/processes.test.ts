import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { type ByteOffset } from '../../../core/units.ts'
import { type NbdClient } from '../../../datapath/replica-remote/nbd-client.ts'
import {
  assertSameBytes,
  DatapathPool,
  type PoolHost,
  type PoolVolume,
  rawFile,
} from '../../support/datapath-pool.ts'

const MIB = 1024 * 1024
const SIZE = 32 * MIB

/** A volume's content as the guest knows it. */
class Content {
  readonly bytes = Buffer.alloc(SIZE)

  async write(client: NbdClient, offset: number, length: number, durable = false): Promise<void> {
    const data = randomBytes(length)
    data.copy(this.bytes, offset)
    await client.write({ offset: offset as ByteOffset, data, durable })
  }

  async assertReadBy(client: NbdClient): Promise<void> {
    const piece = Buffer.alloc(MIB)
    for (let at = 0; at < SIZE; at += MIB) {
      await client.read(at as ByteOffset, piece)
      assert.ok(piece.equals(this.bytes.subarray(at, at + MIB)), `what was written is read at ${at}`)
    }
  }
}

const run = promisify(execFile)

/** A write that is expected to wait, and what came of it. */
function heldWrite(client: NbdClient): { outcome: string; readonly done: Promise<void> } {
  const write = client.write({ offset: 0 as ByteOffset, data: Buffer.alloc(MIB, 0xee), durable: true })
  const held = { outcome: 'held', done: Promise.resolve() }
  held.done = write.then(
    () => void (held.outcome = 'acknowledged'),
    (error: unknown) => void (held.outcome = String(error))
  )
  return held
}

const nameOf = ({ sr, volume }: PoolVolume) => ({ sr, volume })

describe('datapath processes of three hosts', function () {
  this.timeout(120_000)
  let pool: DatapathPool
  let h1: PoolHost
  let h2: PoolHost
  let h3: PoolHost

  before(async () => {
    pool = await DatapathPool.start(3)
    ;[h1, h2, h3] = pool.hosts as [PoolHost, PoolHost, PoolHost]
  })
  after(() => (pool as DatapathPool | undefined)?.dispose())

  const inSync = (volume: PoolVolume, host: PoolHost, count: number) =>
    pool.until(
      volume,
      host,
      `${count} replicas in-sync`,
      ({ replicas, state }) =>
        state === 'serving' && replicas.filter(replica => replica.state === 'in-sync').length === count
    )

  it('serve a volume through the deaths of its secondary and then of its primary', async () => {
    const volume = await pool.createVolume(SIZE, [h1, h2])
    const content = new Content()
    const first = await h1.connect({ path: await pool.open(volume, h1) })
    await content.write(first, 0, 4 * MIB)
    await first.flush()

    await h2.signal('SIGKILL')
    for (let i = 0; i < 16; i++) await content.write(first, 8 * MIB + i * 100_000, 70_001, i % 4 === 0)
    await inSync(volume, h1, 1)
    await h2.start()
    await inSync(volume, h1, 2)
    await content.write(first, 20 * MIB + 123, 300_000)
    await first.flush()

    await h1.signal('SIGKILL')
    assert.match((await first.closed)!.message, /closed the connection|ECONNRESET/)
    const second = await h2.connect({ path: await pool.open(volume, h2) })
    await content.assertReadBy(second)
    await content.write(second, 3 * MIB, MIB)
    await h1.start()
    await inSync(volume, h2, 2)
    await second.close()
    await pool.close(volume, h2)
    assert.equal((await pool.state(volume)).primary, null)
    await assertSameBytes(rawFile(volume, h1), rawFile(volume, h2))
  })

  it('let another host take over from a stopped primary, which holds its client when it wakes up', async () => {
    const content = new Content()
    const volume = await pool.createVolume(SIZE, [h1, h2])
    const old = await h1.connect({ path: await pool.open(volume, h1) })
    await content.write(old, MIB, 2 * MIB)
    await old.flush()
    // A second one, to end the wait in the other way.
    const second = await pool.createVolume(SIZE, [h1, h2])
    const oldSecond = await h1.connect({ path: await pool.open(second, h1) })

    await h1.signal('SIGSTOP')
    // Sent to the stopped primary, so that it finds these in its sockets as the first thing when it wakes up.
    const late = [old, oldSecond].map(client => heldWrite(client))
    const client = await h2.connect({ path: await pool.open(volume, h2) })
    await content.write(client, 2 * MIB, 2 * MIB)
    await client.flush()
    await pool.open(second, h2)

    await h1.signal('SIGCONT')
    for (const each of [volume, second]) {
      const status = await pool.until(each, h1, 'the old primary stands back', ({ waits }) =>
        waits.some(wait => wait.for === 'deactivation')
      )
      assert.equal(status.state, 'holding')
      assert.deepEqual(status.waits, [{ for: 'deactivation', primary: h2.host }])
      assert.equal(status.connections, 1)
    }
    assert.deepEqual(
      late.map(({ outcome }) => outcome),
      ['held', 'held']
    )
    await inSync(volume, h2, 2)
    await content.assertReadBy(client)
    await client.close()

    await pool.close(volume, h1)
    await late[0]!.done
    await pool.close(volume, h2)
    await assertSameBytes(rawFile(volume, h1), rawFile(volume, h2))

    // What its guest remembers of before h2 had it is of no use any more.
    await pool.close(second, h2)
    await h1.call('volume.activate', { ...nameOf(second), deadlineMs: 30_000 })
    await late[1]!.done
    for (const { outcome } of late) assert.match(outcome, /closed the connection|ECONNRESET/)
    await pool.close(second, h1)
  })

  it('take up what a killed process had attached and activated, at the same socket', async () => {
    const volume = await pool.createVolume(SIZE, [h1, h2])
    const content = new Content()
    const socket = await pool.open(volume, h1)
    const before = await h1.connect({ path: socket })
    await content.write(before, 5000, MIB, true)

    await h1.signal('SIGKILL')
    await before.closed
    await h1.start()
    await inSync(volume, h1, 2)
    const after = await h1.connect({ path: socket })
    await content.assertReadBy(after)
    await content.write(after, 10 * MIB, MIB)
    await after.close()
    await pool.close(volume, h1)
    await assert.rejects(h1.connect({ path: socket }), { code: 'PEER_UNREACHABLE' })
    await assertSameBytes(rawFile(volume, h1), rawFile(volume, h2))
  })

  it('take it up later when the coordinator was away, and serve replicas meanwhile', async () => {
    const [own, other] = [await pool.createVolume(SIZE, [h1, h2]), await pool.createVolume(SIZE, [h1, h2])]
    const [content, otherContent] = [new Content(), new Content()]
    const socket = await pool.open(own, h1)
    const before = await h1.connect({ path: socket })
    await content.write(before, 0, MIB, true)
    const guest = await h2.connect({ path: await pool.open(other, h2) })

    await pool.hideCoordinator()
    await h1.signal('SIGKILL')
    await h1.start()
    await otherContent.write(guest, 0, MIB, true)
    await inSync(other, h2, 2)
    assert.equal((await h1.call('volume.status', nameOf(own))).attached, false)

    // What is not attached again yet must survive another death.
    await h1.signal('SIGKILL')
    await h1.start()
    await pool.showCoordinator()
    await inSync(own, h1, 2)
    await pool.until(own, h1, 'the socket is there again', status => status.socket === socket)
    const after = await h1.connect({ path: socket })
    await content.assertReadBy(after)
    await Promise.all([after.close(), guest.close()])
    await pool.close(own, h1)
    await pool.close(other, h2)
    await assertSameBytes(rawFile(own, h1), rawFile(own, h2))
    await assertSameBytes(rawFile(other, h1), rawFile(other, h2))
  })

  it('serve a host that has no replica, and end in good order on SIGTERM', async () => {
    const volume = await pool.createVolume(SIZE, [h1, h2])
    const content = new Content()
    const client = await h3.connect({ path: await pool.open(volume, h3) })
    await content.write(client, 0, MIB)
    await content.assertReadBy(client)
    await h3.signal('SIGTERM')
    await client.closed
    assert.equal((await pool.state(volume)).primary, null)
    await assertSameBytes(rawFile(volume, h1), rawFile(volume, h2))
    const next = await h2.connect({ path: await pool.open(volume, h2) })
    await content.assertReadBy(next)
    await next.close()
    await pool.close(volume, h2)

    // It had the volume activated; but the guest has been elsewhere since.
    await h3.start()
    await pool.until(volume, h3, 'it is attached again', ({ attached }) => attached)
    await h3.logged('not taken up: another host had it since')
    assert.equal((await pool.state(volume)).primary, null)
    await pool.close(volume, h3)
  })

  it('end the connections of a volume that is deactivated, and take new ones', async () => {
    const volume = await pool.createVolume(SIZE, [h1, h2])
    const socket = await pool.open(volume, h1)
    const first = await h1.connect({ path: socket })
    await h1.call('volume.deactivate', { ...nameOf(volume), deadlineMs: 30_000 })
    await first.closed
    const second = await h1.connect({ path: socket })
    const read = second.read(0 as ByteOffset, Buffer.alloc(4096))
    await h1.call('volume.activate', { ...nameOf(volume), deadlineMs: 30_000 })
    await read
    await second.close()
    await pool.close(volume, h1)
  })

  it('show a replica to NBD tools, read-only and beside the session that writes it', async () => {
    const volume = await pool.createVolume(SIZE, [h1, h2])
    const content = new Content()
    const client = await h1.connect({ path: await pool.open(volume, h1) })
    await content.write(client, 7 * MIB, 3 * MIB, true)
    const check = await h2.connect({ exportName: `check/${volume.sr}/${volume.volume}` })
    assert.equal(check.capabilities.writable, false)
    await content.assertReadBy(check)
    await content.write(client, 8 * MIB, MIB, true)
    await content.assertReadBy(check)
    await inSync(volume, h1, 2)
    await check.close()
    await client.close()
    await pool.close(volume, h1)
  })

  it('show the same bytes to qemu-img as lie in the raw file', async function () {
    if ((await run('qemu-img', ['--version']).catch(() => null)) === null) {
      console.log('      skipped: qemu-img is not installed (Debian: qemu-utils)')
      this.skip()
    }
    const volume = await pool.createVolume(SIZE, [h1, h2])
    const client = await h1.connect({ path: await pool.open(volume, h1) })
    await new Content().write(client, 3 * MIB + 77, 2 * MIB, true)
    await client.close()
    await pool.close(volume, h1)
    const uri = `nbd://${h2.address}:7730/check/${volume.sr}/${volume.volume}`
    const compared = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', rawFile(volume, h1), uri])
    assert.match(compared.stdout, /Images are identical/)
  })

  it('let only one process of an index run', async () => {
    const second = h1.spawn()
    const [code] = (await once(second, 'exit')) as [number]
    assert.equal(code, 1)
    assert.match(await readFile(h1.log, 'utf8'), /datapath-0\.lock.*another process has locked it/)
  })
})

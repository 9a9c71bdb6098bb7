import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
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

describe('datapath processes of three hosts', function () {
  this.timeout(120_000)
  let pool: DatapathPool
  let h1: PoolHost
  let h2: PoolHost

  before(async () => {
    pool = await DatapathPool.start(3)
    const [a, b] = pool.hosts
    h1 = a!
    h2 = b!
  })
  after(() => pool.dispose())

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
})

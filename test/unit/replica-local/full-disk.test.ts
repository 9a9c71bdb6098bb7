import assert from 'node:assert/strict'
import { byteOffset } from '../../../core/units.ts'
import { ReplicaHost } from '../../support/replica-on-simulated-disk.ts'

const BLOCK = 4096

const read = async (host: ReplicaHost): Promise<Uint8Array> =>
  host.replica.read(byteOffset(0), new Uint8Array(2 * BLOCK))

describe('a local replica on a disk that becomes full in the middle of a write', () => {
  it('makes durable with a flush what the disk has taken, which nobody may ever write again', async () => {
    // A power cut keeps much of what was not synced; among so many at least one would have lost it.
    for (let seed = 1; seed <= 16; seed += 1) {
      const host = new ReplicaHost(seed, 1024 * 1024)
      await host.start()
      host.disk.capacity = host.disk.used + BLOCK
      const write = host.replica.write({
        offset: byteOffset(0),
        data: new Uint8Array(2 * BLOCK).fill(1),
        durable: false,
      })
      await assert.rejects(write, { code: 'NO_SPACE' })
      const seen = await read(host)
      assert.deepEqual(seen, new Uint8Array(2 * BLOCK).fill(1, 0, BLOCK))
      await host.replica.flush()
      host.powerCut()
      await host.open()
      assert.deepEqual(await read(host), seen)
    }
  })
})

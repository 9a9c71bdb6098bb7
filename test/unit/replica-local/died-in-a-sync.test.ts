/**
 * A process that dies leaves in the page cache what it wrote, synced or not, and the next process cannot tell which. If it
 * took what it finds for durable, a power cut would take back what others had been promised on it.
 */
import assert from 'node:assert/strict'
import { byteOffset, type Epoch, type RegionIndex } from '../../../core/units.ts'
import { type DiskCall } from '../../simulator/disk-call.ts'
import { ReplicaHost } from '../../support/replica-on-simulated-disk.ts'

const MIB = 1024 * 1024
const BLOCK = 4096

const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value)

const write = (host: ReplicaHost, offset: number, data: Uint8Array, durable = false): Promise<void> =>
  host.replica.write({ offset: byteOffset(offset), data, durable })

/** Everything that can happen without the disk has happened. */
const settled = async (): Promise<void> => new Promise(resolve => setImmediate(resolve))

describe('what a process wrote to a replica and did not sync before it died', () => {
  /** A host whose disk never ends the syncs of one kind of file, so that what was written stays in the page cache. */
  async function hostWithoutSyncsOf(suffix: string): Promise<{ host: ReplicaHost; hold: () => void }> {
    let holding = false
    const delay = async (call: DiskCall, name: string): Promise<void> =>
      holding && call === 'sync' && name.endsWith(suffix) ? new Promise(() => undefined) : Promise.resolve()
    const host = new ReplicaHost(1, 4 * MIB, { delay })
    await host.start()
    return { host, hold: () => (holding = !holding) }
  }

  /** The process dies in a sync that has not happened, and another one opens the replica. */
  async function dieAndOpen(host: ReplicaHost): Promise<void> {
    host.random.fraction = () => 0.9
    host.restartProcess()
    await host.open()
  }

  /** The host loses power and every un-synced write. */
  async function losePowerAndOpen(host: ReplicaHost): Promise<void> {
    host.random.fraction = () => 0
    host.powerCut()
    host.random.fraction = () => 0.9
    await host.open()
  }

  it('a block map is durable after the next flush', async () => {
    const { host, hold } = await hostWithoutSyncsOf('.map')
    await write(host, BLOCK, bytes(BLOCK, 1), true)
    await write(host, 0, bytes(BLOCK, 2))
    hold()
    void host.replica.flush()
    await settled()
    hold()
    await dieAndOpen(host)
    await host.replica.flush()
    await losePowerAndOpen(host)
    const into = bytes(BLOCK, 0xee)
    await host.replica.read(byteOffset(0), into)
    assert.deepEqual(into, bytes(BLOCK, 2))
  })

  it('an intent is durable before data is written under it', async () => {
    const { host, hold } = await hostWithoutSyncsOf('.map')
    hold()
    void write(host, 0, bytes(BLOCK, 1))
    await settled()
    hold()
    await dieAndOpen(host)
    await write(host, 0, bytes(BLOCK, 2))
    await losePowerAndOpen(host)
    assert.ok(host.replica.intents.has(0 as RegionIndex))
  })

  it('an epoch is durable before it is accepted a second time', async () => {
    const { host, hold } = await hostWithoutSyncsOf('/replica')
    hold()
    void host.replica.acceptEpoch(5 as Epoch, { rebuilding: false })
    await settled()
    hold()
    await dieAndOpen(host)
    assert.equal(host.replica.acceptedEpoch, 5)
    await losePowerAndOpen(host)
    assert.equal(host.replica.acceptedEpoch, 5)
  })
})

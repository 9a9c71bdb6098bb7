import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { compareFiles } from '../../../cli/lab/compare-files.ts'
import { connectDisk } from '../../../cli/lab/guest-disk.ts'
import {
  type PoolHost,
  type PoolVolume,
  closeVolume,
  openVolume,
  takeOverVolume,
} from '../../../cli/lab/pool.ts'
import { replicaFiles, showVolume, waitUntilInSync } from '../../../cli/lab/volume-watch.ts'
import { byteOffset } from '../../../core/units.ts'
import { TestLab } from '../../support/test-lab.ts'

const SIZE = 16 * 1024 * 1024
const CHUNK = 256 * 1024
const IN_SYNC_DEADLINE_MS = 60_000

/** The shortest way through everything: from SR.create to I/O that survives the loss of either host. */
describe('a pool of hosts', function () {
  this.timeout(180_000)
  let lab: TestLab | null = null

  afterEach(async () => {
    await lab?.dispose()
    lab = null
  })

  it('keeps every acknowledged write when the secondary dies and returns, and then the primary dies', async () => {
    lab = await TestLab.start(3)
    const pool = lab
    const [first] = pool.hosts
    const volume = await pool.createVolume(SIZE)
    const expected = Buffer.alloc(SIZE)

    const disk = await connectDisk(await openVolume(first!, volume))
    const write = async (from: number, to: number): Promise<void> => {
      for (let offset = from; offset < to; offset += CHUNK) {
        const data = randomBytes(CHUNK)
        data.copy(expected, offset)
        await disk.write({ offset: byteOffset(offset), data, durable: false })
      }
    }
    await write(0, SIZE / 4)
    const roles = await pool.roles(first!, volume)
    assert.equal(roles.primary.name, first!.name)

    const secondary = await pool.control(roles.secondary)
    await secondary.kill()
    await write(SIZE / 8, SIZE / 2)
    const { replicas } = await showVolume(first!, volume)
    assert.equal(replicas.find(({ host }) => host === roles.secondary.uuid)?.state, 'stale')

    await secondary.start()
    await waitUntilInSync(first!, volume, IN_SYNC_DEADLINE_MS)
    await write(SIZE / 2, (SIZE * 3) / 4)

    await (await pool.control(roles.primary)).kill()
    await disk.close().catch(() => undefined)
    const second = await connectDisk(await takeOverVolume(roles.secondary, volume, 30_000))
    const found = Buffer.alloc(SIZE)
    await second.read(byteOffset(0), found)
    assert.equal(Buffer.compare(found, expected), 0)

    await (await pool.control(roles.primary)).start()
    await waitUntilInSync(roles.secondary, volume, IN_SYNC_DEADLINE_MS)
    await second.close()
    await closeVolume(roles.secondary, volume)
    const files = [...(await replicaFiles(pool.paths, volume)).values()]
    assert.equal(files.length, 2)
    assert.equal((await compareFiles(files[0]!, files[1]!, SIZE)).firstDifference, null)
  })

  it('brings the stale replica of a closed volume up to date by itself, once its host is back', async () => {
    lab = await TestLab.start(2)
    const pool = lab
    const [first] = pool.hosts
    const volume = await pool.createVolume(SIZE)
    const disk = await connectDisk(await openVolume(first!, volume))
    const secondary = await pool.control(pool.hosts[1]!)
    await secondary.kill()
    await disk.write({ offset: byteOffset(CHUNK), data: randomBytes(CHUNK), durable: true })
    await disk.close()
    await closeVolume(first!, volume)
    const { primary, replicas } = await showVolume(first!, volume)
    assert.equal(primary, null)
    assert.deepEqual(replicas.map(({ state }) => state).sort(), ['in-sync', 'stale'])

    await secondary.start()
    await waitUntilInSync(first!, volume, IN_SYNC_DEADLINE_MS)
    await waitUntilClosed(first!, volume, IN_SYNC_DEADLINE_MS)
    const files = [...(await replicaFiles(pool.paths, volume)).values()]
    assert.equal((await compareFiles(files[0]!, files[1]!, SIZE)).firstDifference, null)
  })

  it('has no guests on a host that was killed and started again: its volume is closed, and opens elsewhere', async () => {
    lab = await TestLab.start(2)
    const [first, second] = lab.hosts
    const volume = await lab.createVolume(SIZE)
    await openVolume(first!, volume)
    const control = await lab.control(first!)
    await control.kill()
    await control.start()
    await waitUntilClosed(second!, volume, IN_SYNC_DEADLINE_MS)
    await openVolume(second!, volume)
    assert.equal((await showVolume(second!, volume)).primary, second!.uuid)
  })
})

/** What was opened for a resync, or by a guest that is gone, is closed again. */
async function waitUntilClosed(host: PoolHost, volume: PoolVolume, deadlineMs: number): Promise<void> {
  const end = performance.now() + deadlineMs
  while ((await showVolume(host, volume)).primary !== null) {
    assert.ok(performance.now() < end, `not closed within ${deadlineMs} ms`)
    await delay(20)
  }
}

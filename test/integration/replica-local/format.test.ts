import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { byteLength, byteOffset, type BootId, type Epoch, type VolumeKey } from '../../../core/units.ts'
import { NodeDisk } from '../../../datapath/disk/node-disk.ts'
import { LocalReplica } from '../../../datapath/replica-local/local-replica.ts'

const FIXTURE = join(import.meta.dirname, '../../fixtures/formats/v1/replica')
const VOLUME = '10000000-0000-4000-8000-000000000001' as VolumeKey
const BOOT = '50000000-0000-4000-8000-000000000005' as BootId
const LATER_BOOT = '60000000-0000-4000-8000-000000000006' as BootId
const SIZE = 2 * 1024 * 1024
const KIB = 1024

describe('a replica that the first version of format 1 wrote', () => {
  let directory: string
  let disk: NodeDisk

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-format-'))
    const files = join(directory, 'volumes', VOLUME)
    await mkdir(files, { recursive: true })
    for (const name of await readdir(FIXTURE)) {
      if (!name.endsWith('.gz')) continue
      await writeFile(join(files, basename(name, '.gz')), gunzipSync(await readFile(join(FIXTURE, name))))
    }
    disk = await NodeDisk.open(directory)
  })

  afterEach(() => rm(directory, { recursive: true }))

  /** What was flushed, and optionally what the page cache of the writing boot held besides. */
  function contentOf(unflushed: boolean): Uint8Array {
    const content = new Uint8Array(SIZE)
    content.fill(1, 0, 8 * KIB)
    content.fill(2, 1024 * KIB + 100, 1024 * KIB + 1100)
    content.fill(3, 320 * KIB, 384 * KIB)
    content.fill(0, 324 * KIB, 332 * KIB)
    if (unflushed) content.fill(4, SIZE - 4 * KIB)
    // A block that the durable map claims shows what the disk has of it, flushed or not.
    content.fill(5, 0, 4 * KIB)
    return content
  }

  async function check(boot: BootId, expected: Uint8Array): Promise<LocalReplica> {
    const replica = await LocalReplica.open(disk, VOLUME, boot)
    assert.equal(replica.replica, '20000000-0000-4000-8000-000000000002')
    assert.equal(replica.store, '30000000-0000-4000-8000-000000000003')
    assert.deepEqual(replica.layers, ['40000000-0000-4000-8000-000000000004'])
    assert.equal(replica.acceptedEpoch, 42)
    assert.equal(replica.state, 'rebuilding')
    assert.deepEqual([...replica.intents], [0, 5, 16, 31])
    const content = new Uint8Array(SIZE)
    await replica.read(byteOffset(0), content)
    assert.ok(Buffer.compare(content, expected) === 0, 'the content is another')
    return replica
  }

  it('opens in the boot that wrote it with everything that was acknowledged', async () => {
    const replica = await check(BOOT, contentOf(true))
    assert.equal(replica.mayHaveLost, false)
    await replica.close()
  })

  it('opens in a later boot without the block that no durable map claims', async () => {
    const replica = await check(LATER_BOOT, contentOf(false))
    assert.equal(replica.mayHaveLost, true)
    assert.deepEqual(await replica.allocation(byteOffset(316 * KIB), byteLength(16 * KIB)), [
      { length: 4 * KIB, hole: true, zero: true },
      { length: 4 * KIB, hole: false, zero: false },
      { length: 8 * KIB, hole: true, zero: true },
    ])
    await replica.close()
  })

  it('can be written on', async () => {
    const replica = await check(BOOT, contentOf(true))
    await replica.acceptEpoch(43 as Epoch, { rebuilding: false })
    await replica.write({ offset: byteOffset(500 * KIB), data: new Uint8Array(KIB).fill(9), durable: true })
    await replica.close()
    const later = await LocalReplica.open(disk, VOLUME, LATER_BOOT)
    const into = new Uint8Array(KIB)
    await later.read(byteOffset(500 * KIB), into)
    assert.ok(into.every(byte => byte === 9))
    await later.close()
  })
})

import assert from 'node:assert/strict'
import { RegionSet } from '../../../core/mirror/region-set.ts'
import { type DiskFile } from '../../../core/ports/disk.ts'
import { byteLength, byteOffset, type LayerId, REGION_BYTES, type RegionIndex } from '../../../core/units.ts'
import { Layer } from '../../../datapath/replica-local/layer.ts'
import { PAGE_COVERS_BYTES } from '../../../datapath/replica-local/map-layout.ts'

const LAYER = '8b5f0f0e-6c0b-4c57-9f0a-2f6f4e6f9d11' as LayerId
const BOOT = '0d3c5e0c-54a5-4f0c-8f5b-7a4b0f8f2a55'

/** A file of zeros that takes everything and keeps nothing. */
const boundless = (): DiskFile => ({
  read: async into => Promise.resolve(void into.fill(0)),
  write: async () => Promise.resolve(),
  sync: async () => Promise.resolve(),
  punch: async () => Promise.resolve(),
  reserve: async () => Promise.resolve(),
  resize: async () => Promise.resolve(),
  stat: async () => Promise.resolve({ size: byteLength(0), allocated: byteLength(0) }),
  tryLock: () => true,
  close: async () => Promise.resolve(),
})

describe('a layer of a large volume', () => {
  it('takes changes of more regions between two flushes than a Set has room for', async () => {
    const pages = Math.ceil(((2 ** 24 + 1) * REGION_BYTES) / PAGE_COVERS_BYTES)
    const size = pages * PAGE_COVERS_BYTES
    const files = { layer: LAYER, path: 'a path', data: boundless(), map: boundless(), live: boundless() }
    const layer = await Layer.open(files, size, BOOT, {
      check: () => undefined,
      fatal: error => error as Error,
      failedCall: async error => Promise.resolve(error as Error),
    })
    // As much as one call writes. Nobody looks at the bytes, so they never take memory.
    const data = new Uint8Array(PAGE_COVERS_BYTES)
    for (let page = 0; page < pages; page++) await layer.write(byteOffset(page * PAGE_COVERS_BYTES), data)

    const last = new RegionSet(size / REGION_BYTES)
    last.add((size / REGION_BYTES - 1) as RegionIndex)
    layer.clearIntents(last)
    assert.equal(layer.intents.count, size / REGION_BYTES, 'a region that is not flushed keeps its intent')
    await layer.flush()
    layer.clearIntents(last)
    assert.equal(layer.intents.count, size / REGION_BYTES - 1)
  }).timeout(60_000)
})

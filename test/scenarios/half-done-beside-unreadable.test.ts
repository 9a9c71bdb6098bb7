/**
 * A host dies while it makes a volume, and among the records is one that this version cannot read. That one must not keep
 * the janitors from ending what the dead host left.
 */
import assert from 'node:assert/strict'
import { volumeStateKey } from '../../cluster/keys.ts'
import { type VolumeKey } from '../../core/units.ts'
import { playInPool } from '../support/pool-rig.ts'

/** A janitor leaves another host's operation alone for 30 s. */
const PATIENCE_MS = 50_000

describe('scenario: a volume is left half-done beside a record that cannot be read', () => {
  it('is cleared up', async () =>
    playInPool(5, async rig => {
      const [h1, h2, h3] = rig.hosts
      const newer = volumeStateKey(rig.sr, '00000000-0000-4000-8000-000000000000' as VolumeKey)
      rig.coordinator.transact('story', [], [{ key: newer, value: '{"version":2}' }])
      void rig.create(h1)
      await rig.until('the volume is recorded', () => rig.records.length > 1)
      rig.daemon(h1).kill()
      // They look at all volumes when they start.
      for (const host of [h2, h3]) {
        rig.daemon(host).kill()
        rig.daemon(host).start()
      }
      await rig.until('it is gone', () => rig.records.length === 1, PATIENCE_MS)
      assert.deepEqual(rig.records, [newer])
      await rig.until('its files are gone', () => [h2, h3].every(host => rig.filesOn(host).length === 0))
    }))
})

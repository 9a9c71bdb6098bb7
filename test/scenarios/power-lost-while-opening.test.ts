/**
 * The host of the only replica loses power between its acceptance of an epoch and the session that the new primary wants
 * to open on it. When it is back it has another boot id, for which the primary opens the volume again, while the
 * first opening is not over. One of the two must have the volume in the end, and its node must know of it: a mirror
 * that nobody holds would keep the right to write with nobody to ask for it back.
 */
import assert from 'node:assert/strict'
import { hasCode } from '../../core/errors.ts'
import { nodeOf, play, readBlock, writeBlock } from '../support/scenario-rig.ts'

const REGIONS = 8

describe('scenario: the only replica loses power while the volume is being opened', () => {
  for (const { awayMs, ends } of [
    { awayMs: 500, ends: 'served' },
    { awayMs: 3_000, ends: 'served' },
    { awayMs: 20_000, ends: 'given up' },
  ]) {
    it(`the activation is ${ends} and leaves nothing behind when the host is away for ${awayMs} ms`, async () =>
      play(3, REGIONS, async rig => {
        const [h1, h2, h3] = rig.hosts
        await rig.create(h2)
        const { replicas } = nodeOf(h2)
        replicas.confirm = async () => {
          if (h2.poweredOn) h2.cutPower()
          rig.world.after(awayMs, () => h2.start())
          return new Promise(() => undefined)
        }
        const outcome = await rig.activate(h1, 9_000).then(
          () => 'served',
          (error: unknown) => {
            const known = hasCode(error, 'DEADLINE_EXCEEDED') || hasCode(error, 'NO_REPLICA_REACHABLE')
            assert.ok(known, String(error))
            return 'given up'
          }
        )
        assert.equal(outcome, ends)
        await rig.world.pause(30_000)

        if (outcome === 'served') {
          assert.equal(rig.mirror(h1)?.phase, 'serving')
          await assert.rejects(rig.activate(h3), { code: 'ACTIVATED_ON_ANOTHER_HOST' })
          await rig.deactivate(h1)
        }
        assert.equal(rig.mirror(h1), null)
        assert.equal(rig.state.primary, null)

        const elsewhere = await rig.activate(h3)
        await writeBlock(elsewhere, 0, 8, true)
        await rig.deactivate(h3)

        const device = await rig.activate(h1)
        assert.equal(await readBlock(device, 0), 8)
        const { epoch } = rig.state
        const until = rig.world.now + 3_000
        let writes = 0
        for (; rig.world.now < until; writes++) await writeBlock(device, 0, 9)
        assert.ok(writes > 500, `only ${writes} writes in three seconds`)
        assert.equal(rig.state.epoch, epoch, 'nobody else opens it')
      }))
  }
})

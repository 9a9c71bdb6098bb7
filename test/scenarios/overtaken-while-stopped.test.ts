/**
 * The datapath process of a host is stopped while it opens a volume, and another host takes the volume meanwhile. Who
 * asked the first one is told where the volume is, which says what to do next, and not that time ran out.
 */
import assert from 'node:assert/strict'
import { playInPool } from '../support/pool-rig.ts'

describe('scenario: a host is overtaken in an activation while its datapath process is stopped', () => {
  it('says that the volume is active on the other host', async () =>
    playInPool(6, async rig => {
      const [h1, h2] = rig.hosts
      const volume = await rig.created(h1)
      for (const [host, domain] of [[h1, 'u0_1'] as const, [h2, 'u0_2'] as const])
        await rig.datapathCall(host, 'Datapath.attach', volume, domain)
      h1.pause()
      const first = rig.datapathCall(h1, 'Datapath.activate', volume, 'u0_1')
      await rig.world.pause(5_000)
      assert.equal((await rig.datapathCall(h2, 'Datapath.activate', volume, 'u0_2')).kind, 'done')
      const answer = await first
      assert.equal(answer.kind, 'failed')
      assert.match((answer as { error: string }).error, /^ACTIVATED_ON_ANOTHER_HOST/)
    }))
})

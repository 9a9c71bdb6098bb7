import assert from 'node:assert/strict'
import { MirrorState } from '../../../../core/mirror/mirror-state.ts'
import { RegionSet } from '../../../../core/mirror/region-set.ts'
import { IntentClearing } from '../../../../core/mirror/write-intent.ts'
import { byteLength, byteOffset, millis } from '../../../../core/units.ts'
import { type MirrorContext } from '../../../../datapath/mirror/mirror-context.ts'
import { RequestCarrier } from '../../../../datapath/mirror/request-carrier.ts'
import { replicaOn } from '../../core/mirror/samples.ts'

const REPLICA = replicaOn('a')

/** A replica as the carrier sees it. */
class Link {
  readonly record = { replica: REPLICA }
  session: object | null = null
  sent = 0

  nextSequence(): number {
    return ++this.sent
  }
}

describe('who carries the requests of a guest', () => {
  it('asks nobody who has no session, and asks when there is one', async () => {
    const state = new MirrorState()
    state.addLink(REPLICA, true)
    state.setStandings([{ replica: REPLICA, standing: 'in-sync', mayBeRead: true }])
    state.connected(REPLICA)
    state.serve(new RegionSet(1))
    const link = new Link()
    const context = {
      state,
      links: new Map([[REPLICA, link]]),
      clearing: new IntentClearing(1),
      options: { clock: { now: () => millis(0) } },
      changed: { notify: () => undefined },
    }
    const owner = { hurry: () => undefined, weighRefusals: () => undefined }
    const carrier = new RequestCarrier(context as unknown as MirrorContext, owner)
    const range = { offset: byteOffset(0), length: byteLength(4096), durable: false }
    const acknowledged = carrier.change('trim', range, null)
    assert.equal(link.sent, 0)
    assert.equal(carrier.guestBusy, true)
    link.session = { trim: async () => Promise.resolve() }
    state.connected(REPLICA)
    carrier.drain()
    await acknowledged
    assert.equal(link.sent, 1)
  })
})

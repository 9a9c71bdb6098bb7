import assert from 'node:assert/strict'
import { MirrorState } from '../../../../core/mirror/mirror-state.ts'
import { RegionSet } from '../../../../core/mirror/region-set.ts'
import { IntentClearing } from '../../../../core/mirror/write-intent.ts'
import { byteLength, byteOffset, millis } from '../../../../core/units.ts'
import { type MirrorContext } from '../../../../datapath/mirror/mirror-context.ts'
import { RequestCarrier } from '../../../../datapath/mirror/request-carrier.ts'
import { replicaOn } from '../../core/mirror/samples.ts'

const REPLICA = replicaOn('a')
const OTHER = replicaOn('b')
/** In milliseconds, as of a clock that begins at 0. */
const PROMISED_UNTIL = 3_000

/** A replica as the carrier sees it. */
class Link {
  readonly record = { replica: REPLICA }
  session: object | null = null
  sent = 0

  nextSequence(): number {
    return ++this.sent
  }
}

/** A carrier of a volume with a local replica, and one elsewhere that owes its promise until a moment. */
class Carrying {
  readonly state = new MirrorState()
  readonly link = new Link()
  readonly carrier: RequestCarrier
  now = 0

  constructor() {
    for (const [replica, isLocal] of [
      [REPLICA, true],
      [OTHER, false],
    ] as const) {
      this.state.addLink(replica, isLocal)
      this.state.connected(replica)
    }
    this.state.setStandings(
      [REPLICA, OTHER].map(replica => ({ replica, standing: 'in-sync', mayBeRead: true }) as const)
    )
    this.state.promised(OTHER, millis(PROMISED_UNTIL))
    this.state.serve(new RegionSet(1))
    const context = {
      state: this.state,
      links: new Map([[REPLICA, this.link]]),
      clearing: new IntentClearing(1),
      options: { clock: { now: () => millis(this.now) } },
      changed: { notify: () => undefined },
    }
    const owner = { hurry: () => undefined, weighRefusals: () => undefined }
    this.carrier = new RequestCarrier(context as unknown as MirrorContext, owner)
  }

  /** @param takesMs during which the process is stopped in the midst of the read */
  readAtOnce(takesMs = 0): boolean {
    this.link.session = {
      readAtOnce: () => {
        this.now += takesMs
        return true
      },
    }
    return this.carrier.readAtOnce(byteOffset(0), new Uint8Array(4096))
  }
}

describe('a read at once, where it is carried', () => {
  it('is told as long as the promises hold when the bytes are there', () => {
    assert.equal(new Carrying().readAtOnce(), true)
    assert.equal(new Carrying().readAtOnce(PROMISED_UNTIL - 1), true)
    assert.equal(new Carrying().readAtOnce(PROMISED_UNTIL), false)
  })

  it('is not without a session, or when the session has to wait', () => {
    const { carrier, link } = new Carrying()
    const into = new Uint8Array(4096)
    assert.equal(carrier.readAtOnce(byteOffset(0), into), false)
    link.session = {}
    assert.equal(carrier.readAtOnce(byteOffset(0), into), false)
    link.session = { readAtOnce: () => false }
    assert.equal(carrier.readAtOnce(byteOffset(0), into), false)
  })

  it('says for a moment that the guest is at work, so that a copy does not take all there is', () => {
    const carrying = new Carrying()
    assert.equal(carrying.carrier.guestBusy, false)
    carrying.readAtOnce()
    carrying.now += 19
    assert.equal(carrying.carrier.guestBusy, true)
    carrying.now += 1
    assert.equal(carrying.carrier.guestBusy, false)
  })
})

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

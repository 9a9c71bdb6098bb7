import assert from 'node:assert/strict'
import { XosanError } from '../../../../core/errors.ts'
import { type AcceptAnswer, type EpochAnswer, type ReplicaAddress } from '../../../../core/mirror/messages.ts'
import { RegionSet } from '../../../../core/mirror/region-set.ts'
import { DEFAULT_TIMING } from '../../../../core/mirror/timing.ts'
import { type Epoch, epoch, type Millis, type SessionNumber, type StoreId } from '../../../../core/units.ts'
import { type LinkOwner, ReplicaLink } from '../../../../datapath/mirror/replica-link.ts'
import { type ReplicaPeer, type ReplicaSession } from '../../../../datapath/mirror/replica-peer.ts'
import { World } from '../../../simulator/world.ts'
import { HOST_A, HOST_B, processOf, replicaOn } from '../../core/mirror/samples.ts'

const EPOCH = epoch(7)
const LIMIT_MS = 100_000

/**
 * An in-sync replica that has not stored the epoch of its primary yet, because a contender that came to nothing had
 * its word, and the link that is to connect it again. Time is virtual.
 */
class Rig {
  readonly world = new World(1, () => undefined)
  readonly excludedAt: number[] = []
  readonly link: ReplicaLink
  connectedAt: number | null = null
  aborted = false
  #wanted = true
  #accepted: Epoch = epoch(5)

  /**
   * @param accept what it answers to a request for the epoch
   * @param opened called when a session with it has been opened, before the link knows
   */
  constructor(accept: (now: number) => AcceptAnswer | Promise<never>, opened = (): void => undefined) {
    const { world } = this
    const identity = processOf(HOST_B)
    const peer: Partial<ReplicaPeer> = {
      local: false,
      pulse: { incarnation: null, renewedSentAt: -1 as Millis, takenAway: 0 },
      onPulse: () => () => undefined,
      confirm: async (): Promise<EpochAnswer> =>
        Promise.resolve(
          this.#accepted === EPOCH
            ? { kind: 'ok', identity, takenAway: 0, lostAt: null }
            : { kind: 'refused', identity, accepted: this.#accepted }
        ),
      accept: async () => {
        await world.pause(DEFAULT_TIMING.callTimeoutMs / 2)
        const answer = await accept(world.now)
        if (answer.kind === 'accepted') this.#accepted = EPOCH
        return answer
      },
      intents: async () => Promise.resolve(new RegionSet(1)),
      openSession: async () => {
        opened()
        const abort = (): void => void (this.aborted = true)
        return Promise.resolve({ closed: new Promise(() => undefined), abort } as unknown as ReplicaSession)
      },
    }
    const owner: Partial<LinkOwner> = {
      clock: { now: () => world.now as Millis, after: (ms, action) => world.after(ms, action) },
      timing: DEFAULT_TIMING,
      identity: processOf(HOST_A),
      purpose: 'guest',
      reconciled: true,
      epoch: () => EPOCH,
      address: () => ({}) as ReplicaAddress,
      nextSession: () => 1 as SessionNumber,
      mustAcknowledge: () => this.#wanted,
      connected: () => void (this.connectedAt = world.now),
      disconnected: () => undefined,
      notConnected: () => undefined,
      promised: () => undefined,
      exclude: async () => {
        this.excludedAt.push(world.now)
        this.#wanted = false
        this.link.stop('it was taken out')
        return Promise.resolve()
      },
      raise: async () => assert.fail('nobody has taken the epoch'),
    }
    const record = { host: HOST_B, replica: replicaOn('b'), store: 'a store' as StoreId, inSync: true }
    this.link = new ReplicaLink(record, peer as ReplicaPeer, owner as LinkOwner)
  }

  /** Lets the link work until it is connected, or has been given up. */
  async play(): Promise<void> {
    void this.link.run()
    const settled = async (): Promise<void> => {
      while (this.connectedAt === null && this.excludedAt.length === 0) await this.world.pause(1)
    }
    await this.world.runUntil(settled(), LIMIT_MS)
  }
}

const accepted: AcceptAnswer = { kind: 'accepted', identity: processOf(HOST_B), lostAt: null }
const preparing: AcceptAnswer = { kind: 'preparing', identity: processOf(HOST_B), reason: 'it flushes' }

describe('a primary that has an in-sync replica store its epoch again', () => {
  it('waits for it while it says that it is at work', async () => {
    const rig = new Rig(now => (now < 12_000 ? preparing : accepted))
    await rig.play()
    assert.deepEqual(rig.excludedAt, [])
    assert.ok(rig.connectedAt! >= 12_000 && rig.connectedAt! < 13_000, `connected at ${rig.connectedAt}`)
  })

  it('takes it out when that takes longer than a request may', async () => {
    const rig = new Rig(() => preparing)
    await rig.play()
    const [at] = rig.excludedAt
    assert.ok(
      at! >= DEFAULT_TIMING.requestTimeMs && at! < DEFAULT_TIMING.requestTimeMs + 1000,
      `out at ${at}`
    )
  })

  it('takes it out soon when it does not answer, also after it was at work', async () => {
    const rig = new Rig(async now =>
      now < 3000 ? (preparing as never) : Promise.reject(new Error('no answer'))
    )
    await rig.play()
    assert.ok(rig.excludedAt[0]! < 3000 + DEFAULT_TIMING.callTimeoutMs, `out at ${rig.excludedAt[0]}`)
  })

  it('takes it out soon when it owes a promise all the same, of which the request has freed it', async () => {
    const rest = { holder: HOST_A, epoch: epoch(5), remainingMs: 4000 as Millis }
    const rig = new Rig(() => ({ kind: 'promised', identity: processOf(HOST_B), ...rest }))
    await rig.play()
    assert.ok(rig.excludedAt[0]! < 2 * DEFAULT_TIMING.callTimeoutMs, `out at ${rig.excludedAt[0]}`)
  })

  it('takes it out at once when it turns out to be lost while a session is opened', async () => {
    const volume = 'a volume'
    for (const error of [
      new XosanError('REPLICA_GONE', { volume, replica: 'b', reason: 'its files are gone' }),
      new XosanError('REPLICA_CORRUPT', { path: 'replica', reason: 'its checksum is wrong' }),
    ]) {
      const rig = new Rig(
        () => accepted,
        () => {
          throw error
        }
      )
      await rig.play()
      assert.ok(rig.excludedAt[0]! < DEFAULT_TIMING.callTimeoutMs, `out at ${rig.excludedAt[0]}`)
    }
  })

  it('ends the session, and is not connected, when its opening came to an end meanwhile', async () => {
    const rig: Rig = new Rig(
      () => accepted,
      () => rig.link.stop('it is opened again')
    )
    await rig.world.runUntil(rig.link.run(), LIMIT_MS)
    assert.equal(rig.connectedAt, null)
    assert.equal(rig.aborted, true)
  })
})

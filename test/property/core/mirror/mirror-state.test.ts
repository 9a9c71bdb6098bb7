import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type MirrorRequest } from '../../../../core/mirror/mirror-request.ts'
import { type LinkStanding, MirrorState } from '../../../../core/mirror/mirror-state.ts'
import { RegionSet } from '../../../../core/mirror/region-set.ts'
import { type ReplicaId, byteLength, byteOffset, epoch } from '../../../../core/units.ts'
import { ms, replicaOn } from '../../../unit/core/mirror/samples.ts'

/** How long a promise is good for, in milliseconds. */
const PROMISED = 1000
const REPLICAS = ['a', 'b', 'c'].map(replicaOn)
const KINDS = ['write', 'write', 'write', 'zero', 'read', 'read', 'flush', 'lock'] as const

type Standing = LinkStanding['standing']

const event = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom(...KINDS),
      offset: fc.nat(6),
      length: fc.integer({ min: 1, max: 3 }),
    }),
  },
  { weight: 10, arbitrary: fc.record({ answer: fc.nat(50) }) },
  { weight: 4, arbitrary: fc.record({ link: fc.nat(2), turn: fc.constantFrom('off', 'on', 'standing') }) },
  { weight: 1, arbitrary: fc.record({ serve: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ durable: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ promise: fc.constantFrom(null, null, 0, 1, 2) }) },
  { weight: 1, arbitrary: fc.record({ powerLoss: fc.constant(true) }) }
)

interface Sent {
  readonly request: MirrorRequest
  readonly replica: ReplicaId
}

/** A primary whose sessions, replicas and record change in any order, with what must be true checked at each effect. */
class Trial {
  readonly #state = new MirrorState()
  readonly #unreconciled = new RegionSet(1)
  readonly #standings = new Map<ReplicaId, Standing>(REPLICAS.map(replica => [replica, 'in-sync']))
  readonly #connected = new Set<ReplicaId>()
  /** Sent and not answered; a session that ends forgets them. */
  #sent: Sent[] = []
  /** Changes and flushes that each replica has answered, and not lost since. */
  readonly #holds = new Map<ReplicaId, Set<MirrorRequest>>(REPLICAS.map(replica => [replica, new Set()]))
  readonly #open = new Set<MirrorRequest>()
  readonly #locks = new Set<MirrorRequest>()
  /** Until when each replica's last promise is good; those that are not renewed lapse with `#now`. */
  readonly #promised = new Map<ReplicaId, number>()
  #now = 0
  #onlyDurable = false
  /** Acknowledged, not durable, and not covered by a flush that was submitted afterwards. */
  #unflushed = new Set<MirrorRequest>()
  readonly #covers = new Map<MirrorRequest, Set<MirrorRequest>>()
  readonly #lost = new Set<MirrorRequest>()

  constructor() {
    this.#link()
    this.#state.serve(this.#unreconciled)
  }

  submit(kind: (typeof KINDS)[number], offset: number, length: number): void {
    const range =
      kind === 'flush'
        ? { offset: byteOffset(0), length: byteLength(0) }
        : { offset: byteOffset(offset), length: byteLength(length) }
    const request = this.#state.submit({ kind, ...range, durable: kind === 'flush' })
    this.#open.add(request)
    if (kind === 'flush') this.#covers.set(request, new Set(this.#unflushed))
    this.#drain()
  }

  answer(index: number): void {
    const locks = [...this.#locks]
    const at = index % (this.#sent.length + locks.length || 1)
    if (at < this.#sent.length) {
      const [{ request, replica }] = this.#sent.splice(at, 1) as [Sent]
      if (request.access === 'change') this.#holds.get(replica)!.add(request)
      this.#state.answered(request, replica, ms(this.#now))
    } else if (locks.length > 0) {
      const lock = locks[at - this.#sent.length]!
      this.#locks.delete(lock)
      this.#state.unlock(lock)
    }
    this.#drain()
  }

  turn(index: number, what: 'off' | 'on' | 'standing'): void {
    const replica = REPLICAS[index]!
    if (what === 'on') this.#connect(replica)
    else if (what === 'off') this.#disconnect(replica)
    else this.#changeStanding(replica)
    this.#drain()
  }

  serve(serving: boolean): void {
    if (serving) this.#state.serve(this.#unreconciled)
    else this.#state.hold()
    this.#drain()
  }

  onlyDurable(only: boolean): void {
    this.#onlyDurable = only
    this.#state.acknowledgeOnlyDurable(only)
    this.#drain()
  }

  /** A replica promises anew; without one all promises lapse. */
  promise(index: number | null): void {
    if (index === null) this.#now += PROMISED
    else this.#promise(REPLICAS[index]!)
    this.#drain()
  }

  /** All hosts lose power and the volume is opened again: what is not flushed is gone everywhere. */
  losePower(): void {
    this.#state.hold()
    for (const replica of REPLICAS) {
      this.#disconnect(replica)
      this.#holds.set(replica, new Set())
    }
    this.#drain()
    for (const request of this.#unflushed) this.#lost.add(request)
    this.#state.opened(epoch(1), [epoch(1)])
    this.#link()
    this.#state.serve(this.#unreconciled)
    this.#drain()
  }

  /** With everything well again every request ends. */
  end(): void {
    this.onlyDurable(false)
    this.serve(true)
    for (const replica of REPLICAS) {
      this.#connect(replica)
      this.#promise(replica)
    }
    this.#drain()
    for (let count = 0; this.#sent.length + this.#locks.size > 0; count++) {
      assert(count < 10_000, 'it goes on for ever')
      this.answer(0)
    }
    assert.deepEqual(
      [...this.#open].map(({ number, shape }) => `${shape.kind} ${number}`),
      [],
      'nothing is stuck'
    )
    assert.equal(this.#state.runningCount, 0)
    assert.equal(this.#state.heldCount, 0)
  }

  #link(): void {
    for (const replica of REPLICAS) {
      this.#state.addLink(replica, false)
      this.#promise(replica)
    }
    this.#stand()
  }

  #promise(replica: ReplicaId): void {
    this.#promised.set(replica, this.#now + PROMISED)
    this.#state.promised(replica, ms(this.#now + PROMISED))
  }

  #stand(): void {
    this.#state.setStandings(
      [...this.#standings].map(([replica, standing]) => ({
        replica,
        standing,
        mayBeRead: standing === 'in-sync',
      }))
    )
  }

  #connect(replica: ReplicaId): void {
    if (this.#connected.has(replica)) return
    this.#connected.add(replica)
    this.#state.connected(replica)
  }

  #disconnect(replica: ReplicaId): void {
    if (!this.#connected.delete(replica)) return
    this.#sent = this.#sent.filter(sent => sent.replica !== replica)
    this.#state.disconnected(replica)
    if (this.#standings.get(replica) === 'rebuilding') this.#standings.set(replica, 'stale')
    this.#stand()
  }

  /** In-sync to stale, to rebuilding, to in-sync, each when the driver would do it. */
  #changeStanding(replica: ReplicaId): void {
    const standing = this.#standings.get(replica)!
    const connected = this.#connected.has(replica)
    const others = REPLICAS.filter(other => other !== replica && this.#standings.get(other) === 'in-sync')
    if (standing === 'in-sync' && !connected && others.length > 0) this.#standings.set(replica, 'stale')
    else if (standing === 'stale' && connected) this.#standings.set(replica, 'rebuilding')
    else if (standing === 'rebuilding' && this.#nothingEarlier(replica)) {
      this.#standings.set(replica, 'in-sync')
      // What it missed was copied to it from one that has it, also what is not acknowledged yet.
      for (const request of this.#holds.get(others[0]!)!)
        if (request.pending.size === 0) this.#holds.get(replica)!.add(request)
    }
    this.#stand()
  }

  /** Whether every change under way goes to this replica too, so that the copy has brought all others. */
  #nothingEarlier(replica: ReplicaId): boolean {
    return [...this.#open].every(
      request =>
        request.access !== 'change' ||
        request.pending.size === 0 ||
        request.pending.has(replica) ||
        this.#holds.get(replica)!.has(request)
    )
  }

  #drain(): void {
    for (const effect of this.#state.takeEffects(ms(this.#now))) {
      if (effect.do === 'send' || effect.do === 'read') {
        assert(this.#connected.has(effect.replica), 'sent to nobody')
        assert.notEqual(this.#standings.get(effect.replica), 'stale')
        if (effect.do === 'read') assert.equal(this.#standings.get(effect.replica), 'in-sync')
        this.#sent.push(effect)
      } else if (effect.do === 'acknowledge') this.#acknowledged(effect.request)
      else if (effect.do === 'fail-flush') {
        assert(this.#lost.size > 0, 'a flush fails only when something was lost')
        this.#lost.clear()
        this.#unflushed.clear()
        assert(this.#open.delete(effect.request), 'answered once')
      }
    }
  }

  #acknowledged(request: MirrorRequest): void {
    assert(this.#open.delete(request), 'answered once')
    if (request.shape.kind === 'lock') this.#locks.add(request)
    else {
      for (const [replica, standing] of this.#standings) {
        if (standing === 'in-sync')
          assert(
            this.#promised.get(replica)! > this.#now,
            `${request.number} without a promise of ${replica}`
          )
      }
    }
    if (request.access !== 'change') return
    for (const [replica, standing] of this.#standings) {
      if (standing === 'in-sync')
        assert(this.#holds.get(replica)!.has(request), `${replica} lacks ${request.number}`)
    }
    if (request.shape.kind !== 'flush') {
      assert(!this.#onlyDurable, 'acknowledged although it may not be durable')
      this.#unflushed.add(request)
      return
    }
    for (const covered of this.#covers.get(request)!) {
      assert(
        !this.#lost.has(covered),
        `flush ${request.number} says that lost write ${covered.number} is durable`
      )
      this.#unflushed.delete(covered)
    }
  }
}

describe('a primary, by law', () => {
  it('acknowledges what all in-sync replicas hold and nothing else, and leaves no request behind when all is well', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60, size: 'max' }), events => {
        const trial = new Trial()
        for (const one of events) {
          if ('kind' in one) trial.submit(one.kind, one.offset, one.length)
          else if ('answer' in one) trial.answer(one.answer)
          else if ('link' in one) trial.turn(one.link, one.turn)
          else if ('serve' in one) trial.serve(one.serve)
          else if ('durable' in one) trial.onlyDurable(one.durable)
          else if ('promise' in one) trial.promise(one.promise)
          else trial.losePower()
        }
        trial.end()
      }),
      { numRuns: 20_000 }
    )
  })
})

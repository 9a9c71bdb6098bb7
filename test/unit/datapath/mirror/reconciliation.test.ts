import assert from 'node:assert/strict'
import { RegionSet } from '../../../../core/mirror/region-set.ts'
import { ResyncPlan } from '../../../../core/mirror/resync-plan.ts'
import { type Epoch, type RegionIndex, type ReplicaId } from '../../../../core/units.ts'
import { type MirrorContext } from '../../../../datapath/mirror/mirror-context.ts'
import { Reconciliation } from '../../../../datapath/mirror/reconciliation.ts'
import { type ReplicaLink } from '../../../../datapath/mirror/replica-link.ts'
import { replicaOn } from '../../core/mirror/samples.ts'

const REGIONS = 4

/** A replica as the reconciliation sees it. */
class Link {
  readonly record: { readonly replica: ReplicaId }
  readonly peer = { local: false }
  session: object | null = {}
  lostAt: Epoch | null = null
  inSync = true

  constructor(letter: string) {
    this.record = { replica: replicaOn(letter) }
  }
}

describe('the source of a reconcile', () => {
  let a: Link
  let b: Link
  let plan: ResyncPlan
  let reconciliation: Reconciliation
  const asLink = (link: Link): ReplicaLink => link as unknown as ReplicaLink
  const source = (): unknown => reconciliation.source

  beforeEach(() => {
    a = new Link('a')
    b = new Link('b')
    plan = new ResyncPlan(REGIONS)
    const unreconciled = new RegionSet(REGIONS)
    unreconciled.add(2 as RegionIndex)
    const inSync = (link: ReplicaLink): boolean => (link as unknown as Link).inSync
    const context = {
      links: new Map([a, b].map(link => [link.record.replica, link])),
      plan,
      unreconciled,
      state: { serving: true },
      mayBeRead: inSync,
      mustAcknowledge: inSync,
    }
    reconciliation = new Reconciliation(context as unknown as MirrorContext)
    reconciliation.choose()
    assert.equal(source(), a)
  })

  function disconnect(link: Link): void {
    link.session = null
    reconciliation.update(asLink(link))
  }

  function connect(link: Link): void {
    link.session = {}
    reconciliation.update(asLink(link))
  }

  it('is another replica when it is lost, which then lacks nothing', () => {
    plan.add(b.record.replica, new RegionSet(REGIONS))
    disconnect(a)
    assert.equal(source(), b)
    assert.deepEqual([plan.needs(a.record.replica), plan.needs(b.record.replica)], [true, false])
  })

  it('is no replica that lost more, for who is away a moment', () => {
    b.lostAt = 3 as Epoch
    disconnect(a)
    assert.equal(source(), null)
    connect(a)
    assert.equal(source(), a)
  })

  it('is the first one that is connected when all were away', () => {
    disconnect(b)
    disconnect(a)
    connect(b)
    assert.equal(source(), b)
  })

  it('is not one that was taken out of the record, when it comes back to be rebuilt', () => {
    disconnect(b)
    disconnect(a)
    // Connected without a word, so that nobody asked which is the source.
    b.session = {}
    a.inSync = false
    reconciliation.recordChanged()
    a.session = {}
    assert.equal(source(), b)
  })

  it('is nobody while the only one that was connected is being rebuilt', () => {
    disconnect(b)
    disconnect(a)
    a.inSync = false
    reconciliation.recordChanged()
    a.session = {}
    assert.equal(source(), null)
    connect(b)
    assert.equal(source(), b)
  })

  it('stays the same when the record changes around it', () => {
    b.peer.local = true
    reconciliation.recordChanged()
    assert.equal(source(), a)
  })
})

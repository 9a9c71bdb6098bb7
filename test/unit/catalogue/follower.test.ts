import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import Database from 'better-sqlite3'
import { type Catalogue } from '../../../catalogue/catalogue.ts'
import { CatalogueFollower } from '../../../catalogue/follower.ts'
import { openCatalogue } from '../../../catalogue/open.ts'
import { IDENTITY_KEY, volumeInfoKey, volumeStateKey } from '../../../cluster/keys.ts'
import { type ErrorCode, hasCode } from '../../../core/errors.ts'
import { type Random } from '../../../core/ports/random.ts'
import { type Millis, millis } from '../../../core/units.ts'
import { SimulatedCoordinator } from '../../simulator/simulated-coordinator.ts'
import { ManualClock } from '../cluster/manual-clock.ts'
import { newHost, newSr, newVolume, sampleState, volumeChanges } from './samples.ts'
import { TemporaryDirectory } from './temporary-directory.ts'

const random: Random = { uuid: randomUUID, fraction: () => 0.5 }

describe('the follower of the catalogue', () => {
  let directory: TemporaryDirectory
  let clock: ManualClock
  let store: SimulatedCoordinator
  let catalogue: Catalogue
  let follower: CatalogueFollower
  let unreadable: string[]
  let interruptions: (string | null)[]
  /** What the follower has asked of the coordinator. */
  let verbs: string[]
  let watchDelayMs: Millis
  const sr = newSr()
  const host = newHost()

  beforeEach(async () => {
    directory = new TemporaryDirectory()
    clock = new ManualClock()
    verbs = []
    watchDelayMs = millis(0)
    store = newStore()
    catalogue = openCatalogue(directory.catalogue).catalogue
    unreadable = []
    interruptions = []
    follower = follow()
  })
  afterEach(async () => {
    await close()
    directory.remove()
  })

  const newStore = (historyRevisions = 1000): SimulatedCoordinator =>
    new SimulatedCoordinator({
      clock,
      historyRevisions,
      decide({ verb }) {
        verbs.push(verb)
        return { kind: 'answer', beforeMs: millis(0), afterMs: millis(0) }
      },
      watchDelayMs: () => watchDelayMs,
    })

  function follow(): CatalogueFollower {
    const started = new CatalogueFollower({
      catalogue,
      coordinator: store.client('host'),
      clock,
      random,
      unreadable: ({ key }) => unreadable.push(key),
      interrupted: error => interruptions.push(error === null ? null : error.message),
    })
    started.start()
    return started
  }

  /** Ends the follower even while it waits for a timer of the standing clock. */
  async function close(): Promise<void> {
    const closed = follower.close()
    await clock.advance(60_000)
    await closed
    catalogue.close()
  }

  /** What a crash and a new start of the process are to the catalogue. */
  async function restart(): Promise<void> {
    await close()
    catalogue = openCatalogue(directory.catalogue).catalogue
    follower = follow()
  }

  /** Begins with an empty catalogue. */
  async function startAfresh(next: SimulatedCoordinator): Promise<void> {
    await close()
    directory.remove()
    directory = new TemporaryDirectory()
    store = next
    catalogue = openCatalogue(directory.catalogue).catalogue
    follower = follow()
  }

  function createVolume(name: string): ReturnType<typeof newVolume> {
    const volume = newVolume()
    store.transact('other', [], volumeChanges(sr, volume, sampleState([host]), name))
    return volume
  }

  const names = (): string[] =>
    catalogue.volumes
      .list(sr)
      .map(({ info }) => info.name)
      .sort()

  const isEqual = (): void => assert.deepEqual(catalogue.records.list(''), store.list('').entries)

  const failsWith =
    (code: ErrorCode) =>
    (error: unknown): boolean =>
      hasCode(error, code)

  it('lists what is there and then follows every change', async () => {
    createVolume('before')
    await clock.advance(10)
    assert.deepEqual(names(), ['before'])
    const volume = createVolume('after')
    await clock.advance(10)
    assert.deepEqual(names(), ['after', 'before'])
    store.transact(
      'other',
      [],
      [
        { key: volumeStateKey(sr, volume), value: null },
        { key: volumeInfoKey(sr, volume), value: null },
      ]
    )
    await clock.advance(10)
    assert.deepEqual(names(), ['before'])
    isEqual()
    assert.equal(follower.reached, store.list('').revision)
    assert.equal(catalogue.position().revision, follower.reached)
  })

  it('goes on after a restart from where it was, without listing again', async () => {
    createVolume('one')
    await clock.advance(10)
    await follower.close()
    createVolume('two')
    verbs = []
    await restart()
    await clock.advance(10)
    assert.deepEqual(names(), ['one', 'two'])
    assert.ok(!verbs.includes('list'))
    isEqual()
  })

  it('lists again when the history it needs is gone, and removes what is gone', async () => {
    await startAfresh(newStore(3))
    const gone = createVolume('gone')
    await clock.advance(10)
    store.setReachable('host', false)
    store.transact(
      'other',
      [],
      [
        { key: volumeStateKey(sr, gone), value: null },
        { key: volumeInfoKey(sr, gone), value: null },
      ]
    )
    for (let i = 0; i < 5; i++) {
      createVolume(`new ${i}`)
    }
    store.setReachable('host', true)
    await clock.advance(1_000)
    assert.deepEqual(
      names(),
      [0, 1, 2, 3, 4].map(i => `new ${i}`)
    )
    isEqual()
    createVolume('later')
    await clock.advance(10)
    assert.ok(names().includes('later'))
    assert.deepEqual(interruptions, [])
  })

  it('waits until a revision is in the catalogue, and no longer than the deadline', async () => {
    await clock.advance(10)
    const waiting = follower.waitFor(store.list('').revision + 1, millis(clock.now() + 100))
    let done = false
    void waiting.then(() => (done = true))
    await clock.advance(50)
    assert.equal(done, false)
    createVolume('one')
    await clock.advance(1)
    await waiting
    assert.deepEqual(names(), ['one'])

    const late = assert.rejects(
      follower.waitFor(store.list('').revision + 1, millis(clock.now() + 100)),
      failsWith('DEADLINE_EXCEEDED')
    )
    await clock.advance(101)
    await late
  })

  it('holds everything that had happened before the call once it has synchronised', async () => {
    await clock.advance(10)
    watchDelayMs = millis(500)
    createVolume('one')
    const synchronised = follower.synchronise(millis(clock.now() + 10_000))
    await clock.advance(400)
    assert.deepEqual(names(), [])
    await clock.advance(200)
    await synchronised
    assert.deepEqual(names(), ['one'])
  })

  it('does not call a catalogue synchronised while the coordinator is away, and follows again when it is back', async () => {
    await clock.advance(10)
    const { revision } = store.list('')
    await restartUnreachable()
    const late = assert.rejects(
      follower.waitFor(revision, millis(clock.now() + 1_000)),
      failsWith('DEADLINE_EXCEEDED')
    )
    await clock.advance(10_000)
    await late
    assert.ok(follower.trouble !== null)
    assert.equal(interruptions.length, 1)
    createVolume('meanwhile')
    store.setReachable('host', true)
    await clock.advance(20_000)
    assert.deepEqual(names(), ['meanwhile'])
    assert.equal(interruptions.at(-1), null)
    await follower.waitFor(store.list('').revision, clock.now())
  })

  async function restartUnreachable(): Promise<void> {
    await close()
    store.setReachable('host', false)
    catalogue = openCatalogue(directory.catalogue).catalogue
    follower = follow()
  }

  it('goes on past a record that it cannot read, and reports it', async () => {
    await clock.advance(10)
    const key = volumeStateKey(sr, newVolume())
    store.transact('other', [], [{ key, value: 'no JSON' }])
    const after = createVolume('after')
    await clock.advance(10)
    assert.deepEqual(unreadable, [key])
    assert.equal(catalogue.volumes.get(sr, after)?.info.name, 'after')
    assert.throws(() => names(), failsWith('RECORD_INVALID'))
    isEqual()
  })

  it('keeps what it knows when the coordinator was emptied or replaced', async () => {
    createVolume('precious')
    await clock.advance(10)
    for (const prepare of [
      () => undefined,
      () => store.transact('x', [], [{ key: IDENTITY_KEY, value: 'another' }]),
    ]) {
      store = newStore()
      prepare()
      for (let i = 0; i < 10; i++) {
        store.transact('x', [], [{ key: 'x', value: String(i) }])
      }
      await restart()
      await clock.advance(60_000)
      assert.deepEqual(names(), ['precious'])
      assert.ok(hasCode(follower.trouble, 'COORDINATOR_FOREIGN'))
      await assert.rejects(follower.waitFor(1, millis(clock.now() + 10)), failsWith('COORDINATOR_FOREIGN'))
      const synchronised = assert.rejects(
        follower.synchronise(millis(clock.now() + 10)),
        failsWith('COORDINATOR_FOREIGN')
      )
      await clock.advance(10)
      await synchronised
    }
  })

  it('keeps what it knows when the coordinator has gone back in time', async () => {
    await clock.advance(10)
    const old = store.list('').entries
    createVolume('precious')
    await clock.advance(10)
    store = newStore()
    store.transact('x', [], old)
    await restart()
    await clock.advance(1_000)
    assert.deepEqual(names(), ['precious'])
    assert.ok(hasCode(follower.trouble, 'COORDINATOR_FOREIGN'))
  })

  it('fills a catalogue anew whose file was lost', async () => {
    createVolume('one')
    await clock.advance(10)
    await startAfresh(store)
    await clock.advance(10)
    assert.deepEqual(names(), ['one'])
    isEqual()
  })

  it('loses nothing when a transaction on the catalogue fails', async () => {
    await clock.advance(10)
    const blocker = new Database(directory.catalogue)
    blocker.exec(
      "CREATE TRIGGER refuse BEFORE INSERT ON volumes BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
    )
    createVolume('one')
    createVolume('two')
    await clock.advance(200)
    assert.deepEqual(names(), [])
    assert.match(follower.trouble?.message ?? '', /disk is full/)
    blocker.exec('DROP TRIGGER refuse')
    blocker.close()
    await clock.advance(20_000)
    assert.deepEqual(names(), ['one', 'two'])
    assert.equal(follower.trouble, null)
    isEqual()
  })

  it('tells subscribers the keys of each change once it is in the catalogue', async () => {
    await clock.advance(10)
    const told: string[][] = []
    const end = follower.subscribe(({ keys, revision }) => {
      assert.equal(catalogue.position().revision, revision)
      told.push([...keys].sort())
    })
    const volume = createVolume('one')
    await clock.advance(10)
    assert.deepEqual(told, [[volumeInfoKey(sr, volume), volumeStateKey(sr, volume)]])
    end()
    createVolume('two')
    await clock.advance(10)
    assert.equal(told.length, 1)
  })

  it('tells whoever waits that it was closed', async () => {
    await clock.advance(10)
    const waiting = assert.rejects(
      follower.waitFor(1_000_000, millis(clock.now() + 1_000)),
      failsWith('COORDINATOR_UNAVAILABLE')
    )
    await follower.close()
    await waiting
  })
})

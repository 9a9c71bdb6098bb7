/** What every coordinator must do. An implementation's test calls `coordinatorContract` with its own factory. */
import assert from 'node:assert/strict'
import { hasCode } from '../../core/errors.ts'
import {
  type Condition,
  type Coordinator,
  type Entry,
  type TransactResult,
  type WatchEvent,
} from '../../core/ports/coordinator.ts'

/** One store of its own per test. */
export interface CoordinatorUnderTest {
  /** Another client of the same store. */
  client(): Promise<Coordinator>
  /** Lets a short time pass, long enough for a watch to look again. */
  settle(): Promise<void>
  /** Closes all clients and removes the store. */
  end(): Promise<void>
}

export interface ContractFactory {
  /** @param historyRevisions how much history the store keeps */
  (historyRevisions: number): Promise<CoordinatorUnderTest>
}

/** Larger than what any test of the contract makes, except the one about compaction. */
const HISTORY_LONG = 10_000
const HISTORY_SHORT = 5

export function coordinatorContract(name: string, create: ContractFactory): void {
  describe(`${name} as a coordinator`, () => {
    let store: CoordinatorUnderTest
    let one: Coordinator
    let two: Coordinator

    beforeEach(async () => {
      store = await create(HISTORY_LONG)
      one = await store.client()
      two = await store.client()
    })
    afterEach(async () => store.end())

    it('reads nothing from an empty store', async () => {
      const { entry, revision } = await one.read('a')
      assert.equal(entry, null)
      assert.deepEqual(await one.list(''), { entries: [], revision })
    })

    it('raises the revision with every change and shows it in the entry', async () => {
      const first = await put(one, 'a', '1')
      const second = await put(one, 'b', '2')
      const third = await put(one, 'a', '3')
      assert.ok(first.revision < second.revision && second.revision < third.revision)
      assert.deepEqual(await one.read('a'), {
        entry: { key: 'a', value: '3', revision: third.revision },
        revision: third.revision,
      })
      assert.equal((await one.read('b')).entry?.revision, second.revision)
    })

    it('counts a change to the same value as a change', async () => {
      const first = await put(one, 'a', 'same')
      const second = await put(one, 'a', 'same')
      assert.ok(second.revision > first.revision)
    })

    it('shows the change of one client to the next call of another', async () => {
      await put(one, 'a', 'from one')
      assert.equal((await two.read('a')).entry?.value, 'from one')
    })

    it('lists the keys of a prefix in order, and no others', async () => {
      for (const key of ['b/2', 'a/10', 'a/9', 'a', 'a.b', 'a/1/x']) {
        await put(one, key, key)
      }
      const { entries } = await two.list('a/')
      assert.deepEqual(
        entries.map(({ key }) => key),
        ['a/1/x', 'a/10', 'a/9']
      )
      assert.equal((await two.list('')).entries.length, 6)
    })

    it('keeps text of any characters, and an empty one', async () => {
      for (const value of ['', 'é 漢字 😀 \u0000 "\\', 'x'.repeat(1024 * 1024)]) {
        await put(one, 'a', value)
        assert.equal((await two.read('a')).entry?.value, value)
      }
    })

    it('takes condition 0 as "does not exist"', async () => {
      assert.ok((await one.transact([absent('a')], [set('a', '1')])).committed)
      assert.equal((await one.transact([absent('a')], [set('a', '2')])).committed, false)
      await one.transact([], [set('a', null)])
      assert.ok((await one.transact([absent('a')], [set('a', '3')])).committed)
    })

    it('answers a refusal with the entries as they are, and changes nothing', async () => {
      const a = await put(one, 'a', 'A')
      const b = await put(one, 'b', 'B')
      const refused = await two.transact(
        [{ key: 'a', revision: a.revision }, { key: 'b', revision: b.revision + 1 }, absent('c')],
        [set('a', 'new'), set('c', 'new')]
      )
      assert.equal(refused.committed, false)
      assert.equal(refused.revision, b.revision)
      assert.deepEqual(sorted(refused.current), [
        { key: 'a', value: 'A', revision: a.revision },
        { key: 'b', value: 'B', revision: b.revision },
      ])
      assert.equal((await one.read('a')).entry?.value, 'A')
      assert.equal((await one.read('c')).entry, null)
      assert.equal((await one.read('a')).revision, b.revision)
    })

    it('refuses the revision that an entry had before it was removed and made again', async () => {
      const first = await put(one, 'a', '1')
      await one.transact([], [set('a', null)])
      await put(one, 'a', '1')
      const refused = await one.transact([{ key: 'a', revision: first.revision }], [set('a', '2')])
      assert.equal(refused.committed, false)
    })

    it('changes several keys at one revision', async () => {
      await put(one, 'gone', 'x')
      const result = await one.transact([], [set('a', '1'), set('b', '2'), set('gone', null)])
      const { entries, revision } = await two.list('')
      assert.equal(revision, result.revision)
      assert.deepEqual(entries, [
        { key: 'a', value: '1', revision },
        { key: 'b', value: '2', revision },
      ])
    })

    it('keeps its revision when a transaction changes nothing', async () => {
      const { revision } = await put(one, 'a', '1')
      const check = await one.transact([{ key: 'a', revision }], [])
      const removal = await one.transact([], [set('never', null)])
      assert.deepEqual(check, { committed: true, revision, current: [] })
      assert.deepEqual(removal, { committed: true, revision, current: [] })
      assert.equal((await two.read('a')).revision, revision)
    })

    it('refuses keys, values and transactions that not every coordinator takes', async () => {
      const refusals: (() => Promise<unknown>)[] = [
        () => one.read(''),
        () => one.read('with space'),
        () => one.list('/leading'),
        () => put(one, 'é', 'x'),
        () => put(one, 'k'.repeat(513), 'x'),
        () => put(one, 'a', 'é'.repeat(512 * 1024 + 1)),
        () => one.transact([], [set('a', '1'), set('a', '2')]),
        () => one.transact([{ key: 'a', revision: -1 }], [set('a', '2')]),
        () =>
          one.transact(
            [],
            Array.from({ length: 129 }, (_, i) => set(`k${i}`, 'x'))
          ),
      ]
      for (const refusal of refusals) {
        await assert.rejects(refusal, error => hasCode(error, 'INVALID_ARGUMENT'))
      }
      assert.deepEqual((await one.list('')).entries, [])
    })

    it('lets exactly one of several simultaneous compare-and-swaps win', async () => {
      let { revision } = await put(one, 'a', '0')
      for (let round = 0; round < 10; round++) {
        const results = await Promise.all(
          [one, two, one, two].map(async (client, i) =>
            client.transact([{ key: 'a', revision }], [set('a', `${round}.${i}`)])
          )
        )
        const winners = results.filter(({ committed }) => committed)
        assert.equal(winners.length, 1)
        revision = winners[0]!.revision
        assert.equal((await one.read('a')).entry?.revision, revision)
      }
    })

    it('reports later changes of a prefix to a watch, in order, each once', async () => {
      const { revision } = await put(one, 'w/0', 'before')
      const seen = observe(two, 'w/', revision)
      const first = await put(one, 'w/a', '1')
      await put(two, 'other', 'x')
      const second = await put(two, 'w/a', '2')
      const third = await one.transact([], [set('w/a', null)])
      await seen.until(store, third.revision)
      assert.deepEqual(seen.batches(), [
        [first.revision, [set('w/a', '1')]],
        [second.revision, [set('w/a', '2')]],
        [third.revision, [set('w/a', null)]],
      ])
    })

    it('reports the changes of one revision in one batch', async () => {
      const seen = observe(one, '', 0)
      const { revision } = await two.transact([], [set('a', '1'), set('b', '2'), set('c', '3')])
      await seen.until(store, revision)
      assert.deepEqual(seen.batches(), [[revision, [set('a', '1'), set('b', '2'), set('c', '3')]]])
    })

    it('reports to a watch from a past revision what came after it', async () => {
      await put(one, 'a', '1')
      const { revision } = await put(one, 'a', '2')
      const third = await put(one, 'a', '3')
      const fourth = await put(one, 'b', '4')
      const seen = observe(two, '', revision)
      await seen.until(store, fourth.revision)
      assert.deepEqual(seen.batches(), [
        [third.revision, [set('a', '3')]],
        [fourth.revision, [set('b', '4')]],
      ])
    })

    it('reports progress to a watch that has nothing to see', async () => {
      const seen = observe(one, 'quiet/', (await one.read('a')).revision)
      const { revision } = await put(two, 'loud', 'x')
      await seen.until(store, revision)
      assert.deepEqual(seen.batches(), [])
    })

    it('never calls a listener from within watch', async () => {
      const { revision } = await put(one, 'a', '1')
      let returned = false
      const watch = one.watch('', 0, {
        changed: () => assert.ok(returned),
        failed: error => assert.fail(error),
      })
      returned = true
      const seen = observe(one, '', 0)
      await seen.until(store, revision)
      watch.close()
    })

    it('tells a closed watch nothing more, even from within its own listener', async () => {
      const calls: number[] = []
      const watch = one.watch('', 0, {
        changed: revision => {
          calls.push(revision)
          watch.close()
        },
        failed: error => assert.fail(error),
      })
      const other = observe(one, '', 0)
      await put(one, 'a', '1')
      const { revision } = await put(one, 'a', '2')
      await other.until(store, revision)
      // Two watches need not hear of a change in the same moment.
      while (calls.length === 0) await store.settle()
      await store.settle()
      assert.equal(calls.length, 1)
    })

    it('ends its watches and refuses calls once it is closed, and leaves other clients alone', async () => {
      const seen = observe(one, '', 0)
      await one.close()
      await one.close()
      const { revision } = await put(two, 'a', '1')
      const other = observe(two, '', 0)
      await other.until(store, revision)
      await store.settle()
      assert.equal(seen.reached(), 0)
      await assert.rejects(
        () => one.read('a'),
        error => hasCode(error, 'COORDINATOR_UNAVAILABLE')
      )
      await assert.rejects(
        () => put(one, 'a', '2'),
        error => hasCode(error, 'COORDINATOR_UNAVAILABLE')
      )
      assert.equal((await two.read('a')).entry?.value, '1')
    })
  })

  describe(`${name} with a short history`, () => {
    let store: CoordinatorUnderTest
    let client: Coordinator

    beforeEach(async () => {
      store = await create(HISTORY_SHORT)
      client = await store.client()
    })
    afterEach(async () => store.end())

    it('fails a watch whose past is gone, and serves one whose past is kept', async () => {
      const { revision: early } = await put(client, 'a', '0')
      let last = 0
      for (let i = 1; i <= HISTORY_SHORT + 2; i++) {
        last = (await put(client, 'a', String(i))).revision
      }
      const failed = await new Promise<Error>((resolve, reject) => {
        client.watch('', early, {
          changed: () => reject(new Error('a gap was reported as progress')),
          failed: resolve,
        })
        void store.settle()
      })
      assert.ok(hasCode(failed, 'COORDINATOR_COMPACTED'))
      const seen = observe(client, '', last - HISTORY_SHORT)
      await seen.until(store, last)
      assert.equal(seen.batches().length, HISTORY_SHORT)
    })
  })
}

const set = (key: string, value: string | null): WatchEvent => ({ key, value })
const absent = (key: string): Condition => ({ key, revision: 0 })

async function put(client: Coordinator, key: string, value: string): Promise<TransactResult> {
  return client.transact([], [{ key, value }])
}

const sorted = (entries: readonly Entry[]): Entry[] => [...entries].sort((a, b) => (a.key < b.key ? -1 : 1))

/** Collects what a watch reports, and checks that its revisions only rise. */
function observe(
  client: Coordinator,
  prefix: string,
  after: number
): {
  batches(): [number, readonly WatchEvent[]][]
  reached(): number
  until(store: CoordinatorUnderTest, revision: number): Promise<void>
} {
  const batches: [number, readonly WatchEvent[]][] = []
  let reached = after
  let failure: Error | null = null
  client.watch(prefix, after, {
    changed(revision, events) {
      assert.ok(revision > reached || events.length === 0, `batch ${revision} after ${reached}`)
      reached = Math.max(reached, revision)
      if (events.length > 0) {
        batches.push([revision, [...events].sort((a, b) => (a.key < b.key ? -1 : 1))])
      }
    },
    failed(error) {
      failure = error
    },
  })
  return {
    batches: () => batches,
    reached: () => reached,
    async until(store, revision) {
      while (reached < revision) {
        if (failure !== null) {
          throw failure
        }
        await store.settle()
      }
    },
  }
}
